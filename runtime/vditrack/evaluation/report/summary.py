"""Summary of results over clips, with confidence intervals and significant differences."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, norm, t

from vditrack.arrays import Doubles
from vditrack.errors import InputError
from vditrack.evaluation.metrics.results import SMALLER_IS_BETTER, Curve, Result

Verdict = Literal["better", "worse", "no clear difference", "too few clips"]

Clips = dict[str, Result]
"""Results by the name of the clip."""

CONFIDENCE = 0.95
"""Confidence level of the intervals."""
FEWEST_CLIPS = 6
"""Smallest number of clips for a verdict: with five, chance alone gives all differences the same
sign in more than 5% of cases."""
_RESAMPLES = 9999
"""Number of bootstrap resamples."""
_CURVE_RESAMPLES = 1999
"""Number of bootstrap resamples for each bin of a curve: enough for a plot."""
_BATCH = 1000
"""Resamples in memory at a time."""
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean over clips, or a rate over the events of all clips, in percent, with its interval."""

    mean: float
    """Mean of the clips that define the metric; NaN if none does."""
    low: float
    """Lower end of the 95% interval; NaN with fewer than two clips."""
    high: float
    """Upper end of the 95% interval; NaN with fewer than two clips."""
    clips: int
    """Number of clips that define the metric."""
    count: int
    """Number of clips, or of events in them."""


@dataclass(frozen=True)
class Difference:
    """A paired difference between a method and the reference."""

    estimate: Estimate
    smaller_is_better: bool = False
    """Whether a smaller value of the metric is better."""

    @property
    def verdict(self) -> Verdict:
        """The direction of the difference if it is significant."""
        larger: Verdict
        smaller: Verdict
        if self.estimate.clips < FEWEST_CLIPS:
            return "too few clips"
        larger, smaller = ("worse", "better") if self.smaller_is_better else ("better", "worse")
        if self.estimate.low > 0:
            return larger
        return smaller if self.estimate.high < 0 else "no clear difference"


@dataclass(frozen=True)
class MethodSummary:
    """The results of one method on all its clips."""

    name: str
    clips: int
    means: Mapping[str, Estimate]
    """Means by metric and kind of event."""
    differences: Mapping[str, Difference]
    """Differences from the reference by metric and kind of event; empty for the reference."""
    curves: Mapping[str, Curve]
    """Curves by title, pooled over clips."""
    intervals: Mapping[str, Doubles]
    """95% intervals of the curves' success rates by title, in percent, float64 [B, 2] (low, high);
    NaN for bins with cases in fewer than two clips."""
    frames_per_second: float
    """Frames of all clips divided by their time; NaN if no time was measured."""
    worst: tuple[Result, ...]
    """Results with a picture, the worst headline metric first."""


@dataclass(frozen=True)
class Summary:
    """The results of all methods, the reference first."""

    metrics: tuple[str, ...]
    """Names of metrics, which are means over clips, the headline metric first."""
    events: tuple[str, ...]
    """Names of the kinds of events that occur in any clip, which are pooled over clips."""
    methods: tuple[MethodSummary, ...]

    @property
    def reference(self) -> MethodSummary:
        """The method with which the others are compared."""
        return self.methods[0]


def summarise(results: Sequence[Result], reference: str) -> Summary:
    """Summarise the results of methods on clips, and compare each method with the reference.

    Args:
        results: Results of all methods.
        reference: Name of the method with which the others are compared.

    Raises:
        InputError: There is no clip, no result of the reference, or one clip twice for a method.

    """
    if not results:
        raise InputError("no clip was evaluated. Give at least one.")
    by_method = _by_summarise_method(results)
    if reference not in by_method:
        raise InputError(f"{reference} has no results. Name one of {', '.join(by_method)}.")
    metrics = tuple(results[0].metrics)
    events = tuple(dict.fromkeys(name for result in results for name in result.events))
    names = metrics + events
    compared_with = by_method.pop(reference)
    first = _summarise_method(reference, compared_with, names, {})
    rest = (
        _summarise_method(name, clips, names, _compare(clips, compared_with, names))
        for name, clips in by_method.items()
    )
    return Summary(metrics, events, (first, *rest))


def _by_summarise_method(results: Sequence[Result]) -> dict[str, Clips]:
    """Return results by method and clip, in the given order."""
    by_method: dict[str, Clips] = {}
    for result in results:
        clips = by_method.setdefault(result.method, {})
        if result.clip in clips:
            raise InputError(
                f"clip {result.clip} occurs twice for {result.method}. Give each clip its own name."
            )
        clips[result.clip] = result
    return by_method


def _summarise_method(
    name: str, clips: Clips, names: tuple[str, ...], differences: Mapping[str, Difference]
) -> MethodSummary:
    results = list(clips.values())
    seconds = sum(result.seconds for result in results)
    return MethodSummary(
        name=name,
        clips=len(results),
        means={name: _estimate(results, name) for name in names},
        differences=differences,
        curves=_pool_curves(results),
        intervals=_estimate_curves(results),
        frames_per_second=sum(result.frames for result in results) / seconds if seconds else np.nan,
        worst=_sort_pictured(results, names[0]),
    )


def _compare(clips: Clips, reference: Clips, names: tuple[str, ...]) -> dict[str, Difference]:
    """Return differences by metric and kind of event, over the clips that both methods have."""
    pairs = [(clips[name], reference[name]) for name in clips if name in reference]
    return {
        name: Difference(
            estimate(
                [own.percent(name) - other.percent(name) for own, other in pairs],
                # Events depend on the annotations alone, so both methods have equally many.
                [own.count(name) for own, _ in pairs],
            ),
            name in SMALLER_IS_BETTER,
        )
        for name in names
    }


def _estimate(results: Sequence[Result], name: str) -> Estimate:
    return estimate(
        [result.percent(name) for result in results], [result.count(name) for result in results]
    )


def estimate(
    values: Sequence[float], counts: Sequence[int] | None = None, resamples: int | None = None
) -> Estimate:
    """Return the mean over clips with its confidence interval.

    Args:
        values: A value in percent for each clip; NaN is left out.
        counts: Weight of each clip, such as its number of events; equal weights if None.
        resamples: Number of bootstrap resamples; None for that of the metrics.

    """
    known = ~np.isnan(np.asarray(values, np.float64))
    defined = np.asarray(values, np.float64)[known]
    weights = (np.ones(len(values)) if counts is None else np.asarray(counts, np.float64))[known]
    if not len(defined):
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    enough = len(defined) > 1
    low, high = _interval(defined, weights, resamples or _RESAMPLES) if enough else (np.nan, np.nan)
    mean = np.average(defined, weights=weights)
    return Estimate(float(mean), low, high, len(defined), int(weights.sum()))


def _interval(values: Doubles, weights: Doubles, resamples: int) -> tuple[float, float]:
    """Return the bootstrap interval over clips: BCa, or percentiles if BCa is not defined.

    With few clips both intervals are too narrow, since they divide the variance by n and ignore
    Student's t. The level is widened to compensate: Hesterberg, What Teachers Should Know About
    the Bootstrap, The American Statistician 69 (2015), "expanded percentile interval".
    """
    count = len(values)
    tail = norm.sf(t.isf((1 - CONFIDENCE) / 2, count - 1) * np.sqrt(count / (count - 1)))
    options = {"confidence_level": 1 - 2 * tail, "batch": _BATCH, "paired": True}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        data = (values, weights)
        done = bootstrap(data, _mean, n_resamples=resamples, rng=_SEED, **options)
    if not np.isfinite(done.confidence_interval).all():
        options |= {"n_resamples": 0, "bootstrap_result": done, "method": "percentile"}
        done = bootstrap(data, _mean, **options)
    low, high = done.confidence_interval
    return float(low), float(high)


def _mean(values: Doubles, weights: Doubles, axis: int) -> Doubles:
    return np.asarray(np.average(values, axis=axis, weights=weights))


def _estimate_curves(results: Sequence[Result]) -> dict[str, Doubles]:
    """Return the intervals of all curves' bins by title, each float64 [B, 2]; see `estimate`."""
    intervals = {}
    for title in dict.fromkeys(title for result in results for title in result.curves):
        curves = [result.curves[title] for result in results if title in result.curves]
        percent = np.stack([curve.percent for curve in curves])
        totals = np.stack([curve.totals for curve in curves]).astype(np.int64)
        bins = [
            estimate(values, counts, _CURVE_RESAMPLES)
            for values, counts in zip(percent.T.tolist(), totals.T.tolist(), strict=True)
        ]
        intervals[title] = np.array([(one.low, one.high) for one in bins], np.float64)
    return intervals


def _pool_curves(results: Sequence[Result]) -> dict[str, Curve]:
    """Return the sums of all clips' curves by title."""
    titles = dict.fromkeys(title for result in results for title in result.curves)
    return {
        title: reduce(add, (result.curves[title] for result in results if title in result.curves))
        for title in titles
    }


def _sort_pictured(results: Sequence[Result], headline: str) -> tuple[Result, ...]:
    """Return the results with a picture and a headline metric, the worst first."""
    pictured = [
        result
        for result in results
        if result.picture is not None and not np.isnan(result.metrics[headline])
    ]
    return tuple(sorted(pictured, key=lambda result: result.metrics[headline]))
