"""Writes the report of a job: one HTML page that loads nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from vditrack.annotation.annotate import LIFE_SECONDS
from vditrack.annotation.job_tables import FailedUnit, Recorded
from vditrack.annotation.summary import Summary, count_things
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError, install_command
from vditrack.input_checks.text import clean_text

ReadThumbnail = Callable[[str], bytes | None]
"""Returns the JPEG of a unit by its name; None if there is none."""
_SAMPLE = 8
"""Recordings in the sample, and in the list of doubtful ones."""
_SHOWN_FAILURES = 500


def write_report(
    path: Path,
    summary: Summary,
    recordings: Sequence[Recorded],
    failed: Sequence[FailedUnit],
    read_thumbnail: ReadThumbnail,
) -> None:
    """Write the report.

    Args:
        path: Destination.
        summary: Summary of the job.
        recordings: Recordings that are done.
        failed: Failures.
        read_thumbnail: Returns the pictures of a unit.

    Raises:
        InputError: jinja2 is not installed, or the file cannot be written.

    """
    jinja2 = import_jinja2()
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_clean,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": _duration, "count": _count}
    template = files("vditrack.annotation").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        summary=summary,
        specification=_describe_points(summary),
        failed=failed[:_SHOWN_FAILURES],
        failures_left=max(0, len(failed) - _SHOWN_FAILURES),
        life=_bars(summary.life, _label_shares(len(summary.life))),
        life_seconds=_bars(summary.life_seconds, _label_times(LIFE_SECONDS)),
        sample=_show(choose_sample(recordings), read_thumbnail),
        doubtful=_show(choose_doubtful(recordings), read_thumbnail),
    )
    with staged_file(path) as scratch:
        scratch.write_text(page, encoding="utf-8", newline="\n")


def choose_sample(recordings: Sequence[Recorded]) -> Sequence[Recorded]:
    """Return recordings at even distances in the list."""
    step = max(1, -(-len(recordings) // _SAMPLE))
    return recordings[::step]


def choose_doubtful(recordings: Sequence[Recorded]) -> Sequence[Recorded]:
    """Return the recordings whose tracks are visible least, the least first."""

    def visible(recording: Recorded) -> float:
        share = recording.record.measures.visible_share
        return -1.0 if share is None else share

    return sorted(recordings, key=visible)[:_SAMPLE]


def import_jinja2() -> Any:  # noqa: ANN401
    """Import jinja2, an optional dependency of the runtime.

    Raises:
        InputError: It is not installed or cannot be imported.

    """
    try:
        return import_module("jinja2")
    except ImportError as error:
        raise InputError(
            f"jinja2, which writes the report, cannot be imported ({error}). "
            f"Run `{install_command('annotate')}`."
        ) from error


def _show(recordings: Sequence[Recorded], read_thumbnail: ReadThumbnail) -> list[dict[str, Any]]:
    shown = []
    for source, name, record in recordings:
        jpeg = read_thumbnail(name)
        url = None if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        shown.append({"source": source, "record": record, "picture": url})
    return shown


def _describe_points(summary: Summary) -> str:
    specification = summary.settings.specification
    if specification.grid is not None:
        points = f"a grid of {specification.grid} x {specification.grid} points"
    elif specification.features is not None:
        points = f"up to {specification.features} corners"
        if specification.renews:
            points = f"about {specification.features} corners at a time, renewed as they are lost"
    elif specification.random is not None:
        points = f"{specification.random} random points"
    else:
        points = f"{len(specification.queries or ())} given points"
    parts = [points]
    if specification.mask is not None:
        parts.append(f"on each object of {specification.mask}")
    if specification.boxes is not None:
        parts.append(f"in each of the boxes ({len(specification.boxes)})")
    if specification.min_spread:
        parts.append(f"those that spread at least {specification.min_spread:g}")
    if specification.pad_to is not None:
        parts.append(f"padded to {specification.pad_to}")
    return ", ".join([*parts, f"in {specification.coordinates}"])


def _bars(counts: Sequence[int], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the bins of a histogram with the height of their bars in percent."""
    largest = max(1, *counts)
    return [
        {"label": label, "count": count, "height": round(100 * count / largest, 1)}
        for label, count in zip(labels, counts, strict=True)
    ]


def _label_shares(bins: int) -> list[str]:
    width = 100 // bins
    return [f"{place * width}-{(place + 1) * width}%" for place in range(bins)]


def _label_times(limits: Sequence[float]) -> list[str]:
    """Return the labels of bins that are divided at some seconds."""
    between = [f"{low:g}-{high:g} s" for low, high in pairwise(limits)]
    return [f"< {limits[0]:g} s", *between, f"> {limits[-1]:g} s"]


def _clean(value: object) -> object:
    """Return what a page shows, without marks that change the direction of the text after them."""
    # Not what is marked as HTML, which is a kind of str.
    return clean_text(str(value)) if type(value) is str or isinstance(value, Path) else value


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _count(number: float, thing: str | None = None) -> str:
    return f"{number:,}" if thing is None else count_things(number, thing)
