"""The curves of a training run, drawn from its log."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vditrack_export.tiny.losses import trivial_denoising
from vditrack_export.tiny.student import Losses
from vditrack_export.tiny.validation import DENOISING_SIGMAS, DISTANCES, SHARES_WITHIN

Entries = Sequence[dict[str, float]]


def draw_curves(log: Path, picture: Path) -> None:
    """Write a picture of losses and validation over the number of steps.

    Args:
        log: the log, JSON lines.
        picture: the path of the PNG file.

    """
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(17, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes_of = figure.subplot_mosaic([["losses", "near", "far"], ["denoising", "auc", "speed"]])
    _draw_losses(axes_of["losses"], entries)
    _draw_denoising(axes_of["denoising"], entries)
    for distance in DISTANCES:
        _draw_shares(axes_of[distance], entries, distance)
    _draw_auc(axes_of["auc"], entries)
    _draw_speed(axes_of["speed"], entries)
    for axes in figure.axes:
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(picture)


def _draw_losses(axes: Axes, entries: Entries) -> None:
    axes.set(title="Training losses", yscale="log")
    for name in Losses._fields:
        _draw(axes, entries, name, label=name)


def _draw_denoising(axes: Axes, entries: Entries) -> None:
    axes.set(title="Denoising loss by noise level, over the best guess from one value alone")
    axes.axhline(1, color="black", linestyle="--")
    for sigma in DENOISING_SIGMAS:
        name = f"denoising_{sigma}"
        _draw(axes, entries, name, label=f"noise {sigma}", unit=trivial_denoising(sigma))


def _draw_shares(axes: Axes, entries: Entries, distance: str) -> None:
    axes.set(title=f"Points matched, frames {distance} in time; dashed: the teacher", ylim=(0, 1))
    for pixels in SHARES_WITHIN:
        _draw_with_teacher(axes, entries, f"{distance}_{pixels}px", f"within {pixels} px")


def _draw_auc(axes: Axes, entries: Entries) -> None:
    axes.set(title="Seen above hidden by similarity (AUC); dashed: the teacher", ylim=(0.4, 1))
    for distance in DISTANCES:
        _draw_with_teacher(axes, entries, f"{distance}_auc", distance)


def _draw_speed(axes: Axes, entries: Entries) -> None:
    axes.set(title="Clips a second, of training alone")
    _draw(axes, entries, "clips_per_second", label="trained")


def _draw_with_teacher(axes: Axes, entries: Entries, name: str, label: str) -> None:
    (line,) = _draw(axes, entries, name, label)
    for entry in entries:
        if f"teacher_{name}" in entry:
            axes.axhline(entry[f"teacher_{name}"], color=line.get_color(), linestyle="--")


def _draw(axes: Axes, entries: Entries, name: str, label: str, unit: float = 1.0) -> list[Line2D]:
    found = [(entry["step"], entry[name] / unit) for entry in entries if name in entry]
    return axes.plot([x for x, _ in found], [y for _, y in found], label=label)
