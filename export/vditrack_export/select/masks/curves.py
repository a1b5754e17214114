"""J&F against the noise level, one panel per data set, as in TED (arXiv 2512.02339)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vditrack_export.select.masks.scores import MaskScores
from vditrack_export.select.masks.search_space import Trial

_PANEL = (4.4, 3.6)
"""Width and height of a panel, in inches."""


class _Curve(NamedTuple):
    name: str
    colour: str
    marker: str
    trials: Mapping[float, Trial]
    """The trials by noise level, rising."""


def draw_curves(scores: MaskScores, title: str, picture: Path) -> None:
    """Write a picture (PNG) of the curves with their 95% intervals over clips.

    A dotted line shows the score of masks that do not move.
    """
    curves, sets = _make_curves(scores), scores.clips.sets
    width, height = _PANEL
    figure = Figure(figsize=(width * len(sets), height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    for number, axes in enumerate(panels):
        for curve in curves:
            _draw(axes, scores, curve, number)
        still = scores.estimate(scores.still, number).mean
        axes.axhline(still, color="gray", linestyle=":", label="masks that do not move")
        axes.set(title=sets[number], xlabel="noise level", xlim=(0, 1))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("J&F, percent")
    panels[0].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(picture, dpi=110)


def _make_curves(scores: MaskScores) -> list[_Curve]:
    """Return the curves; each level has the block, and the weight, that is best over all sets."""
    return [
        _Curve("motion alone", "tab:red", "o", scores.alone_by_noise("motion")),
        _Curve("appearance alone", "tab:blue", "s", scores.alone_by_noise("appearance")),
        _Curve("both, over the noise of motion", "tab:purple", "^", scores.fused_by_noise()),
    ]


def _draw(axes: Axes, scores: MaskScores, curve: _Curve, number: int) -> None:
    noises = list(curve.trials)
    points = [scores.estimate(scores.by_trial[trial], number) for trial in curve.trials.values()]
    means = [point.mean for point in points]
    axes.plot(noises, means, color=curve.colour, marker=curve.marker, label=curve.name)
    low, high = [point.low for point in points], [point.high for point in points]
    axes.fill_between(noises, low, high, color=curve.colour, alpha=0.12, linewidth=0)
