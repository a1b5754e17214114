"""Scores as a picture: blocks x heads for each noise level, and bands x heads at the best block."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vditrack.arrays import Doubles
from vditrack_export.select.points.report import name_band
from vditrack_export.select.points.scores import Scores, average

_CELL = 0.34
"""The side of a square of a small map, in inches."""
_LARGEST = 5.0
"""The largest side of a map, in inches."""
_ABREAST = 3
"""The number of panels in a row."""
_MOST_NAMES = 16
"""The largest number of labels of an axis; longer axes label every second entry or fewer."""


@dataclass(frozen=True)
class _Panel:
    """One map of scores: rows by heads."""

    title: str
    kind: str
    """The label of the rows."""
    rows: list[str]
    values: Doubles
    marked: int | None
    """The row of the best choice, or None if it is in another panel."""


def draw_heat_map(scores: Scores, title: str, picture: Path) -> None:
    """Write a picture (PNG) of all scores around the best choice.

    A panel for each noise level has blocks by heads at the best band; the last panel has bands by
    heads at the best noise level and block.
    """
    space, panels = scores.space, _make_panels(scores)
    heads = [str(head) for head in range(space.heads)] + ["all"] * (space.heads > 1)
    (*_, reading), highest = scores.ranked()[0].place, float(np.nanmax(scores.mean))
    lowest = min(float(average(average(scores.chance, -1), 0)), highest)
    figure = _make_figure(panels, len(heads))
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // _ABREAST), min(len(panels), _ABREAST), number)
        image = axes.imshow(panel.values, cmap="viridis", vmin=lowest, vmax=highest)
        axes.set(title=panel.title, xlabel="head", ylabel=panel.kind)
        _label(axes, heads, panel.rows)
        if panel.marked is not None:
            _mark(axes, panel.marked, reading)
    figure.colorbar(image, ax=figure.axes, label="δ, percent; darkest: chance", shrink=0.8)
    figure.suptitle(title)
    figure.savefig(picture, dpi=110)


def _make_panels(scores: Scores) -> list[_Panel]:
    space, mean, best = scores.space, scores.mean, scores.ranked()[0]
    level, block, band, _ = best.place
    blocks, best_band = [str(b) for b in space.blocks], name_band(best.frequency_range)
    by_level = [
        _Panel(
            f"noise {each.noise:.3g}, band {best_band}",
            "block",
            blocks,
            mean[index, :, band],
            block if index == level else None,
        )
        for index, each in enumerate(space.levels)
    ]
    bands = [name_band(each) for each in space.bands.ranges]
    about = f"block {best.block}, noise {best.denoising.noise:.3g}"
    return [*by_level, _Panel(about, "band", bands, mean[level, block], band)]


def _make_figure(panels: Sequence[_Panel], columns: int) -> Figure:
    rows = max(len(panel.rows) for panel in panels)
    cell = min(_CELL, _LARGEST / max(rows, columns))
    wide, tall = max(columns * cell, 2.0) + 0.8, rows * cell + 1.0
    abreast, deep = min(len(panels), _ABREAST), -(-len(panels) // _ABREAST)
    figure = Figure(figsize=(abreast * wide + 1.2, deep * tall + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _label(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = -(-len(names) // _MOST_NAMES)
        # The last column stands for all heads, which a reader cannot guess from its neighbours.
        places = sorted(
            {*range(0, len(names), step), *([len(names) - 1] if names[-1] == "all" else [])}
        )
        axis.set_ticks(places, [names[place] for place in places])
    axes.tick_params(labelsize=8)


def _mark(axes: Axes, row: int, column: int) -> None:
    axes.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=2)
    )
