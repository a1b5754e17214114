"""Plots of the report, each an SVG element in the colours of the page."""

import math
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vditrack.evaluation.metrics.results import Curve
from vditrack.evaluation.report.summary import MethodSummary

_INK = "#010203"
"""Stands for the colour of the page's text, which a dark page changes."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", _INK)
"""Of Okabe and Ito, told apart by the colour-blind too; without yellow, pale on white."""
_MARKERS = "osD^vPX*"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    **dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        _INK,
    ),
}
_WIDTH = 4.4
"""Of a plot in inches: that of a phone, so that its letters stay as large as the page's."""
_LONGEST = 18
"""Letters of a method's name that a plot has room for."""
_AXIS_LETTERS = 34
"""Letters that fit under the horizontal axis of a plot."""


def dot_plot(metric: str, methods: Sequence[MethodSummary]) -> Markup:
    """Mean and interval of each method, the reference on top with a line down from it."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.5 + 0.3 * len(methods)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(methods[0].means[metric].mean, color=_INK, alpha=0.4, linestyle=":")
        for row, method in enumerate(methods):
            mean, (colour, marker) = method.means[metric], _look(row)
            axes.hlines(row, mean.low, mean.high, color=colour, linewidth=2)
            axes.plot(mean.mean, row, color=colour, marker=marker, markersize=7, clip_on=False)
        axes.set_yticks(range(len(methods)), [_short(method.name) for method in methods])
        axes.set_ylim(len(methods) - 0.5, -0.5)
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, 0), min(right, 100))
        axes.tick_params(left=False)
        axes.spines.left.set_visible(False)
        axes.xaxis.set_major_formatter("{x:g}%")
        axes.grid(axis="x")
        return _svg(figure, f"{metric}: mean and interval of each method")


def curve_plot(title: str, methods: Sequence[MethodSummary]) -> Markup:
    """All methods over the bins, named at their right ends."""
    drawn = {
        index: method.curves[title]
        for index, method in enumerate(methods)
        if title in method.curves
    }
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for index, curve in drawn.items():
            colour, marker = _look(index)
            axes.plot(curve.percent, color=colour, marker=marker, markersize=5, clip_on=False)
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_formatter("{x:g}%")
        axes.grid(axis="y")
        _label_bins(axes, list(drawn.values()))
        _name_ends(axes, {index: (methods[index].name, curve) for index, curve in drawn.items()})
        return _svg(figure, f"{title}: share in percent, by method")


def _label_bins(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write the bins under the axis, and lightly below them how much is in each."""
    bins = curves[0].bins
    counts = [_count_range(column) for column in zip(*(c.totals for c in curves), strict=True)]
    longest = max(map(len, [*bins, *"\n".join(counts).split()]))
    step = math.ceil(len(bins) * (longest + 1) / _AXIS_LETTERS)
    shown = range(0, len(bins), step)
    axes.set_xticks(shown, [bins[place] for place in shown])
    axes.set_xlim(-0.3, len(bins) - 0.7)
    light: dict[str, Any] = {
        "fontsize": 7.5,
        "alpha": 0.7,
        "va": "top",
        "transform": axes.get_xaxis_transform(),
    }
    for place in shown:
        axes.text(place, -0.14, counts[place], ha="center", **light)


def _count_range(totals: Sequence[float]) -> str:
    """Count of one bin, from that of the method with least to that of the one with most."""
    return "-\n".join(dict.fromkeys((_rounded(min(totals)), _rounded(max(totals)))))


def _rounded(count: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.{0 if count >= 10 * size else 1}f}{suffix}"
    return f"{count:.0f}"


def _name_ends(axes: Axes, curves: Mapping[int, tuple[str, Curve]]) -> None:
    """Name each curve beside its last point, the names kept apart."""
    ends = {index: _last(curve) for index, (_, curve) in curves.items()}
    order = sorted(ends, key=lambda index: ends[index])
    for index, height in zip(order, _spread([ends[i] for i in order]), strict=True):
        colour, marker = _look(index)
        beside = axes.get_yaxis_transform()
        axes.plot(1.06, height, color=colour, marker=marker, transform=beside, clip_on=False)
        axes.text(1.1, height, _short(curves[index][0]), va="center", transform=beside)


def _last(curve: Curve) -> float:
    """Height at which a curve ends; 0 where it has no point at all."""
    defined = curve.percent[np.isfinite(curve.percent)]
    return float(defined[-1]) if len(defined) else 0.0


def _spread(heights: Sequence[float], apart: float = 8.0) -> list[float]:
    """Rising heights moved as little as needed to be apart, and not above 100."""
    raised: list[float] = []
    for height in heights:
        raised.append(max(height, raised[-1] + apart) if raised else height)
    ceiling = 100.0
    for place in reversed(range(len(raised))):
        raised[place] = min(raised[place], ceiling)
        ceiling = raised[place] - apart
    return raised


def _look(index: int) -> tuple[str, str]:
    """Colour and marker of a method; markers alone tell the methods apart, too."""
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]


def _short(name: str) -> str:
    """Name without its beginning, if it is a long path."""
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def _svg(figure: Figure, description: str) -> Markup:
    """Draw a figure as an element of the page: in the page's colour, and without dates."""
    written = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": description}):
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    drawn = written.getvalue()
    element = drawn[drawn.index("<svg") :].replace(_INK, "currentColor")
    # The names of groups come again in every figure, and a page may have a name only once.
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    label = f'<svg role="img" aria-label="{escape(description)}"'
    return Markup(element.replace("<svg", label, 1))
