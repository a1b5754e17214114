"""A calibration as tables and as plain data."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vditrack.bundle.configuration import Visibility
from vditrack.bundle.path_choice import PathChoice
from vditrack_export.calibrate.margins import Margins
from vditrack_export.calibrate.rounds import Calibration, list_warnings

_SIGNALS = Visibility.__struct_fields__[1:]


def make_tables(
    found: Calibration,
    facts: Mapping[str, str],
    margins: Margins | None = None,
    paths: PathChoice | None = None,
) -> Group:
    """Return the metrics by threshold, the weights, the metrics before and after, and the rest."""
    parts: list[Text | Table] = [
        Text("metrics by threshold, of the last fit (* is chosen):"),
        _threshold_table(found),
        Text("\nweights, and the area under the curve of each signal alone:"),
        _weight_table(found),
        Text(f"\n{facts['bundle']} on {facts['data']}, {facts['clips']} clips (* is chosen):"),
        _round_table(found),
    ]
    if margins is not None:
        heading = "\nmargins of certain matches, [matching.flow_tracking.certain] (* is the best):"
        parts += [Text(heading), _margin_table(margins)]
    if paths is not None:
        parts += [Text("\nweights of paths, [matching.flow_tracking.paths]:"), _path_table(paths)]
    return Group(*parts)


def to_json(
    found: Calibration,
    facts: Mapping[str, str],
    margins: Margins | None = None,
    paths: PathChoice | None = None,
) -> dict[str, Any]:
    """Return plain data: the chosen weights, all that were tried, and the metrics by threshold.

    ``tried`` begins with the bundle's own weights; ``chosen`` is an index of it. ``still`` has the
    metrics of points that do not move and are always visible. ``margins`` has all that were tried,
    or is null; where ``certain`` is null, no match was. ``paths`` has the weights of paths, or is
    null.
    """
    tried = [
        {"weights": msgspec.structs.asdict(result.weights), **asdict(result.means)}
        for result in found.results
    ]
    return {
        **facts,
        "chosen": found.best,
        "warnings": list_warnings(found),
        "still": asdict(found.still),
        "weights": tried[found.best]["weights"],
        "tried": tried,
        "areas_under_curve": dict(zip((*_SIGNALS, "together"), found.fit.areas, strict=True)),
        "thresholds": [
            {"threshold": threshold, **asdict(means)}
            for threshold, means in zip(
                found.fit.sweep.thresholds, found.fit.sweep.means, strict=True
            )
        ],
        "threshold": found.fit.sweep.thresholds[found.fit.sweep.best],
        "margins": None
        if margins is None
        else [
            {
                "certain": msgspec.to_builtins(result.certain),
                "chosen": result is margins.chosen,
                **asdict(result.means),
            }
            for result in margins.results
        ],
        "paths": None if paths is None else msgspec.structs.asdict(paths),
    }


def _threshold_table(found: Calibration) -> Table:
    table = _make_table("threshold", "AJ", "OA", "sum")
    for index, threshold in enumerate(found.fit.sweep.thresholds):
        means = found.fit.sweep.means[index]
        numbers = (means.average_jaccard, means.occlusion_accuracy, means.objective)
        mark = "*" if index == found.fit.sweep.best else " "
        table.add_row(f"{threshold:.2f}{mark}", *(f"{number:.2f}" for number in numbers))
    return table


def _weight_table(found: Calibration) -> Table:
    table = _make_table("", "before", "after", "area")
    before, after = (
        msgspec.structs.asdict(result.weights) for result in (found.results[0], found.chosen)
    )
    areas = dict(zip(_SIGNALS, found.fit.areas, strict=False))
    for name, value in before.items():
        area = f"{areas[name]:.3f}" if name in areas else ""
        table.add_row(name.replace("_", " "), f"{value:g}", f"{after[name]:g}", area)
    table.add_row("all together", "", "", f"{found.fit.areas[-1]:.3f}")
    return table


def _round_table(found: Calibration) -> Table:
    table = _make_table("", "AJ", "δ", "OA")
    for index, result in enumerate(found.results):
        name = f"round {index}" if index else "before"
        numbers = asdict(result.means).values()
        mark = "*" if index == found.best else ""
        table.add_row(f"{name}{mark}", *(f"{number:.2f}" for number in numbers))
    table.add_row("still", *(f"{number:.2f}" for number in asdict(found.still).values()))
    return table


def _margin_table(margins: Margins) -> Table:
    table = _make_table("", "AJ", "δ", "OA")
    for result in margins.results:
        certain = result.certain
        name = "no certain matches"
        if certain is not None:
            name = f"min_distinction {certain.min_distinction:g}, min_margin {certain.min_margin:g}"
        mark = "*" if result is margins.chosen else ""
        numbers = asdict(result.means).values()
        table.add_row(f"{name}{mark}", *(f"{number:.2f}" for number in numbers))
    return table


def _path_table(paths: PathChoice) -> Table:
    table = _make_table("", "weight")
    for name, value in msgspec.structs.asdict(paths).items():
        table.add_row(name.replace("_", " "), f"{value:g}")
    return table


def _make_table(*headings: str) -> Table:
    """Return a table with columns of numbers; one without a heading holds names."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    return table
