"""The course of a training run, drawn from its log."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vditrack_export.tiny.losses import trivial_denoising
from vditrack_export.tiny.validation import DENOISING_SIGMAS, SHARES_WITHIN

Entries = Sequence[dict[str, float]]


def draw_curves(log: Path, picture: Path) -> None:
    """Draw losses and validation of ``log`` (JSON lines) over the number of clips seen."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    losses, denoising, near, far = figure.subplots(2, 2).flat
    _draw_losses(losses, entries)
    _draw_denoising(denoising, entries)
    _draw_shares(near, entries, "near")
    _draw_shares(far, entries, "far")
    for axes in figure.axes:
        axes.set_xlabel("clips")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(picture)


def _draw_losses(axes: Axes, entries: Entries) -> None:
    axes.set(title="Training losses", yscale="log")
    for name in ("reconstruction", "denoising", "matching"):
        _draw(axes, entries, name, label=name)


def _draw_denoising(axes: Axes, entries: Entries) -> None:
    axes.set(title="Denoising loss by noise level, over the best guess from one value alone")
    axes.axhline(1, color="black", linestyle="--")
    for sigma in DENOISING_SIGMAS:
        name = f"denoising_{sigma}"
        _draw(axes, entries, name, label=f"noise {sigma}", unit=trivial_denoising(sigma))


def _draw_shares(axes: Axes, entries: Entries, distance: str) -> None:
    axes.set(title=f"Points matched, frames {distance} in time; dashed: raw patches", ylim=(0, 1))
    for pixels in SHARES_WITHIN:
        name = f"{distance}_{pixels}px"
        (line,) = _draw(axes, entries, name, label=f"within {pixels} px")
        for entry in entries:
            if f"patches_{name}" in entry:
                axes.axhline(entry[f"patches_{name}"], color=line.get_color(), linestyle="--")


def _draw(axes: Axes, entries: Entries, name: str, label: str, unit: float = 1.0) -> list[Line2D]:
    found = [(entry["clips"], entry[name] / unit) for entry in entries if name in entry]
    return axes.plot([x for x, _ in found], [y for _, y in found], label=label)
