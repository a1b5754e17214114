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
from vditrack_export.calibrate.rounds import Calibration

_SIGNALS = Visibility.__struct_fields__[1:]


def tables(found: Calibration, facts: Mapping[str, str]) -> Group:
    """Return the metrics by threshold, the weights, and the metrics before and after."""
    return Group(
        Text("by threshold, of the fit (* is taken):"),
        _thresholds(found),
        Text("\nweights, and the area under the curve of each signal alone:"),
        _weights(found),
        Text(f"\n{facts['bundle']} on {facts['data']}, {facts['clips']} clips (* is taken):"),
        _rounds(found),
    )


def as_json(found: Calibration, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return plain data: the weights chosen, all that were tried, and what speaks for them.

    ``tried`` begins with the bundle's own; ``chosen`` counts in it.
    """
    tried = [
        {"weights": msgspec.structs.asdict(one.weights), **asdict(one.means)} for one in found.tried
    ]
    return {
        **facts,
        "chosen": found.best,
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
    }


def _thresholds(found: Calibration) -> Table:
    shown = _table()
    for heading in ("threshold", "AJ", "OA", "sum"):
        shown.add_column(heading, justify="right")
    for index, threshold in enumerate(found.fit.sweep.thresholds):
        means = found.fit.sweep.means[index]
        numbers = (means.average_jaccard, means.occlusion_accuracy, means.objective)
        mark = "*" if index == found.fit.sweep.best else " "
        shown.add_row(f"{threshold:.2f}{mark}", *(f"{number:.2f}" for number in numbers))
    return shown


def _weights(found: Calibration) -> Table:
    shown = _table()
    for heading in ("", "before", "after", "area"):
        shown.add_column(heading, justify="right" if heading else "left")
    before, after = (msgspec.structs.asdict(one.weights) for one in (found.tried[0], found.chosen))
    areas = dict(zip(_SIGNALS, found.fit.areas, strict=False))
    for name, value in before.items():
        area = f"{areas[name]:.3f}" if name in areas else ""
        shown.add_row(name.replace("_", " "), f"{value:g}", f"{after[name]:g}", area)
    shown.add_row("all together", "", "", f"{found.fit.areas[-1]:.3f}")
    return shown


def _rounds(found: Calibration) -> Table:
    shown = _table()
    for heading in ("", "AJ", "δ", "OA"):
        shown.add_column(heading, justify="right" if heading else "left")
    for index, one in enumerate(found.tried):
        name = f"round {index}" if index else "before"
        numbers = asdict(one.means).values()
        mark = "*" if index == found.best else ""
        shown.add_row(f"{name}{mark}", *(f"{number:.2f}" for number in numbers))
    return shown


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
