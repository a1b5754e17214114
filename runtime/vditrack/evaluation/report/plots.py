"""Plots of the report as SVG elements, in the colours of the page."""

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
from vditrack.input_checks.text import clean_text

_INK = "#010203"
"""Placeholder for the text colour of the page, which differs in dark mode."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", _INK)
"""Colours of Okabe and Ito for colour-blind readers, without yellow."""
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
"""Width of a plot in inches. It fits a phone, so that plots are not scaled down."""
_BAND = 0.12
"""Opacity of an interval, so that those of five methods stay distinct."""
_LONGEST = 18
"""Largest number of letters of a method's name in a plot."""
_AXIS_LETTERS = 34
"""Number of letters that fit under the horizontal axis of a plot."""


def dot_plot(metric: str, methods: Sequence[MethodSummary]) -> Markup:
    """Plot the mean and interval of each method, the reference at the top with a line down."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.5 + 0.3 * len(methods)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(methods[0].means[metric].mean, color=_INK, alpha=0.4, linestyle=":")
        for row, method in enumerate(methods):
            mean, (colour, marker) = method.means[metric], _curve_style(row)
            axes.hlines(row, mean.low, mean.high, color=colour, linewidth=2)
            axes.plot(mean.mean, row, color=colour, marker=marker, markersize=7, clip_on=False)
        axes.set_yticks(range(len(methods)), [_shorten(method.name) for method in methods])
        axes.set_ylim(len(methods) - 0.5, -0.5)
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, 0), min(right, 100))
        axes.tick_params(left=False)
        axes.spines.left.set_visible(False)
        axes.xaxis.set_major_formatter("{x:g}%")
        axes.grid(axis="x")
        return _render_svg(figure, f"{metric}: mean and interval of each method")


def curve_plot(title: str, methods: Sequence[MethodSummary]) -> Markup:
    """Plot the curves of all methods with their intervals, and their names at the right ends.

    The ideal of a curve, where it has one, is a dotted line.
    """
    drawn = {
        index: method.curves[title]
        for index, method in enumerate(methods)
        if title in method.curves
    }
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for index, curve in drawn.items():
            colour, marker = _curve_style(index)
            axes.plot(curve.percent, color=colour, marker=marker, markersize=5, clip_on=False)
            low, high = methods[index].intervals[title].T
            places = range(len(curve.bins))
            axes.fill_between(places, low, high, color=colour, alpha=_BAND, linewidth=0)
        for ideal in {curve.ideal for curve in drawn.values()} - {()}:
            axes.plot(ideal, color=_INK, alpha=0.4, linestyle=":")
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_formatter("{x:g}%")
        axes.grid(axis="y")
        _label_bins(axes, list(drawn.values()))
        _name_ends(axes, {index: (methods[index].name, curve) for index, curve in drawn.items()})
        return _render_svg(figure, f"{title}: share in percent, by method")


def _label_bins(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write the bins under the axis, and the count of each bin below in a light colour."""
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
    """Return the count of one bin as text, as a range if methods differ."""
    return "-\n".join(dict.fromkeys((_format_count(min(totals)), _format_count(max(totals)))))


def _format_count(count: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.{0 if count >= 10 * size else 1}f}{suffix}"
    return f"{count:.0f}"


def _name_ends(axes: Axes, curves: Mapping[int, tuple[str, Curve]]) -> None:
    """Write the name of each curve beside its last point, without overlaps."""
    ends = {index: _end_height(curve) for index, (_, curve) in curves.items()}
    order = sorted(ends, key=lambda index: ends[index])
    for index, height in zip(order, space_apart([ends[i] for i in order]), strict=True):
        colour, marker = _curve_style(index)
        beside = axes.get_yaxis_transform()
        axes.plot(1.06, height, color=colour, marker=marker, transform=beside, clip_on=False)
        axes.text(1.1, height, _shorten(curves[index][0]), va="center", transform=beside)


def _end_height(curve: Curve) -> float:
    """Return the height of the last point of a curve; 0 without points."""
    defined = curve.percent[np.isfinite(curve.percent)]
    return float(defined[-1]) if len(defined) else 0.0


def space_apart(heights: Sequence[float], apart: float = 8.0) -> list[float]:
    """Return ascending heights moved as little as needed to be ``apart``, and at most 100."""
    raised: list[float] = []
    for height in heights:
        raised.append(max(height, raised[-1] + apart) if raised else height)
    ceiling = 100.0
    for place in reversed(range(len(raised))):
        raised[place] = min(raised[place], ceiling)
        ceiling = raised[place] - apart
    return raised


def _curve_style(index: int) -> tuple[str, str]:
    """Return the colour and marker of a method. Markers alone distinguish methods, too."""
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]


def _shorten(name: str) -> str:
    """Return a name without its beginning if it is too long, such as a path."""
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def _render_svg(figure: Figure, description: str) -> Markup:
    """Render a figure as an SVG element in the text colour of the page, without dates."""
    written = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": description}):
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    drawn = clean_text(written.getvalue())
    element = drawn[drawn.index("<svg") :].replace(_INK, "currentColor")
    # Every figure uses the same group names, but names must be unique in a page.
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    label = f'<svg role="img" aria-label="{escape(description)}"'
    return Markup(element.replace("<svg", label, 1))
