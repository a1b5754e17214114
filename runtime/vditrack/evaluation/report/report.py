"""Formats a summary as a table for the terminal, as JSON, and as one HTML file with plots."""

import base64
import math
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vditrack.atomic_files import staged_file
from vditrack.evaluation.metrics.results import SMALLER_IS_BETTER, Result
from vditrack.evaluation.report.plots import curve_plot, dot_plot
from vditrack.evaluation.report.summary import (
    CONFIDENCE,
    FEWEST_CLIPS,
    Estimate,
    MethodSummary,
    Summary,
)
from vditrack.input_checks.text import clean_text

_VERDICT_STYLES = {"better": "green", "worse": "red"}
_JPEG_QUALITY = 85


def format_table(summary: Summary, facts: Mapping[str, str]) -> Group:
    """Return a table of methods and metrics for the terminal, with the best means in bold.

    Rates of events are in a second table, since 80 columns have room for three metrics.

    Args:
        summary: The summary.
        facts: Facts for the title, by name.

    """
    means, shares = _empty_table(summary.metrics), _empty_table(summary.events)
    means.add_column("fps", justify="right")
    means.add_column("clips", justify="right")
    best = _best(summary)
    for method in summary.methods:
        name = Text(method.name)
        cells = {metric: _cell(summary, method, metric, best[metric]) for metric in best}
        speed = _speed(method.frames_per_second)
        means.add_row(name, *map(cells.get, summary.metrics), speed, str(method.clips))
        shares.add_row(name, *map(cells.get, summary.events))
    title = ", ".join(f"{name} {value}" for name, value in facts.items())
    notes = Text(" ".join(_notes(summary)), style="table.caption")
    below = (Text(), shares, notes) if summary.events else (notes,)
    return Group(Text(title, style="table.title"), means, *below)


def _empty_table(metrics: Sequence[str]) -> Table:
    """Return a table with columns for the method and the metrics, without rows."""
    # Three metrics fit into 80 columns without a frame and with long names folded.
    columns = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    columns.add_column("method", overflow="fold", max_width=9)
    for metric in metrics:
        columns.add_column(Text(metric))
    return columns


def summary_json(
    summary: Summary, results: Sequence[Result], facts: Mapping[str, str]
) -> dict[str, Any]:
    """Return all but the pictures as JSON values: percentages, and null for undefined values."""
    return {
        "facts": dict(facts),
        "notes": _notes(summary),
        "reference": summary.reference.name,
        "metrics": list(summary.metrics),
        "events": list(summary.events),
        "methods": [_method_json(method) for method in summary.methods],
        "clips": [_result_json(result) for result in results],
    }


def write_html(
    path: Path, summary: Summary, results: Sequence[Result], facts: Mapping[str, str]
) -> None:
    """Write the report as one HTML file that loads nothing else.

    The same input gives the same bytes.

    Args:
        path: The file.
        summary: The summary.
        results: Results that were summarised.
        facts: Facts for the head of the page, by name.

    Raises:
        InputError: The folder of ``path`` cannot be written.

    """
    environment = Environment(
        autoescape=True,
        finalize=_clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "signed": _signed,
        "interval": _interval,
        "speed": _speed,
        "jpeg": _jpeg_url,
    }
    source = (
        files("vditrack.evaluation.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    page = environment.from_string(source).render(
        summary=summary,
        facts=facts,
        notes=_notes(summary),
        confidence=f"{CONFIDENCE:.0%}",
        best=_best(summary),
        scope=partial(_scope, summary),
        dots={metric: dot_plot(metric, summary.methods) for metric in _columns(summary)},
        curves={title: curve_plot(title, summary.methods) for title in _titles(summary)},
        clips=_by_clip(summary, results),
    )
    with staged_file(path) as scratch:
        scratch.write_text(page, encoding="utf-8", newline="\n")


def _clean(value: object) -> object:
    """Return what a page shows, without marks that change the direction of the text after them."""
    return clean_text(value) if type(value) is str else value


def _notes(summary: Summary) -> list[str]:
    """Return the notes that a reader needs to interpret the figures."""
    notes = [
        f"Metrics in percent: mean over clips [its {CONFIDENCE:.0%} confidence interval, "
        "bootstrap over clips].",
    ]
    if len(summary.methods) > 1:
        notes.append(
            f"Below each mean: the paired difference from {summary.reference.name}, called "
            "better or worse only if its interval excludes 0."
        )
    if summary.events:
        pooled = " and ".join(summary.events)
        notes.append(f"Rates over the events of all clips together: {pooled}.")
    smaller = [name for name in _columns(summary) if name in SMALLER_IS_BETTER]
    if smaller:
        notes.append(f"Smaller is better: {' and '.join(smaller)}.")
    counts = {mean.clips for method in summary.methods for mean in method.means.values()}
    if min(counts) < FEWEST_CLIPS:
        notes.append(f"Fewer than {FEWEST_CLIPS} clips allow no verdict, and intervals are rough.")
    if 1 in counts:
        notes.append("One clip gives no interval.")
    return notes


def _columns(summary: Summary) -> tuple[str, ...]:
    """Return the names of metrics, then those of events."""
    return summary.metrics + summary.events


def _best(summary: Summary) -> dict[str, float]:
    """Return the best mean of each metric; NaN if no method has one."""
    best = {}
    for metric in _columns(summary):
        means = [method.means[metric].mean for method in summary.methods]
        choose = min if metric in SMALLER_IS_BETTER else max
        best[metric] = choose(filter(math.isfinite, means), default=math.nan)
    return best


def _cell(summary: Summary, method: MethodSummary, metric: str, best: float) -> Text:
    mean = method.means[metric]
    cell = Text(_percent(mean.mean), style="bold" if mean.mean == best else "")
    cell.append(f" {_interval(mean)}".rstrip())
    if scope := _scope(summary, method, metric):
        cell.append(f"\n{scope}", style="dim")
    if metric in method.differences:
        difference = method.differences[metric]
        verdict = f"\n{_signed(difference.estimate.mean)} {difference.verdict}"
        cell.append(verdict, style=_VERDICT_STYLES.get(difference.verdict, "dim"))
    return cell


def _scope(summary: Summary, method: MethodSummary, metric: str) -> str:
    """Return the number of events or clips of a mean as text, empty for all clips."""
    mean = method.means[metric]
    if metric in summary.events:
        return (
            f"{_format_number_of(mean.count, 'event')} in {_format_number_of(mean.clips, 'clip')}"
        )
    return f"of {_format_number_of(mean.clips, 'clip')}" if mean.clips < method.clips else ""


def _format_number_of(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _signed(value: float) -> str:
    # Adding 0 turns -0 into +0.
    return "-" if math.isnan(value) else f"{round(value, 1) + 0.0:+.1f}"


def _interval(estimate: Estimate) -> str:
    """Return the interval as text, empty if there is none."""
    if math.isnan(estimate.low):
        return ""
    return f"[{round(estimate.low, 1) + 0.0:.1f}, {round(estimate.high, 1) + 0.0:.1f}]"


def _speed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.1f}"


def _method_json(method: MethodSummary) -> dict[str, Any]:
    return {
        "name": method.name,
        "clips": method.clips,
        "frames_per_second": _number(method.frames_per_second),
        "metrics": {name: _estimate_json(mean) for name, mean in method.means.items()},
        "differences": {
            name: {**_estimate_json(difference.estimate), "verdict": difference.verdict}
            for name, difference in method.differences.items()
        },
        "curves": {
            title: {
                "bins": list(curve.bins),
                "hits": curve.hits.tolist(),
                "totals": curve.totals.tolist(),
                "low": [_number(low) for low in method.intervals[title][:, 0]],
                "high": [_number(high) for high in method.intervals[title][:, 1]],
            }
            for title, curve in method.curves.items()
        },
        "worst": [result.clip for result in method.worst],
    }


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {
        "mean": _number(estimate.mean),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
        "clips": estimate.clips,
        "count": estimate.count,
    }


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "clip": result.clip,
        "method": result.method,
        "metrics": {name: _number(value) for name, value in result.metrics.items()},
        "events": {
            name: {"hits": share.hits, "total": share.total}
            for name, share in result.events.items()
        },
        "frames": result.frames,
        "seconds": result.seconds,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _by_clip(summary: Summary, results: Sequence[Result]) -> list[tuple[str, list[float]]]:
    """Return each method's headline metric by clip, the reference's worst first, NaN last."""
    headline = summary.metrics[0]
    found = {(result.clip, result.method): result.metrics[headline] for result in results}
    rows = [
        (clip, [found.get((clip, method.name), math.nan) for method in summary.methods])
        for clip in dict.fromkeys(result.clip for result in results)
    ]
    return sorted(rows, key=lambda row: math.inf if math.isnan(row[1][0]) else row[1][0])


def _jpeg_url(picture: NDArray[np.uint8]) -> str:
    """Return a picture [h, w, 3] RGB as a data: URL."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _titles(summary: Summary) -> list[str]:
    return list(dict.fromkeys(title for method in summary.methods for title in method.curves))
