"""What the results of many clips say together, and whether a difference is more than noise."""

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
from vditrack.evaluation.metrics.results import Curve, Result

Verdict = Literal["better", "worse", "no clear difference", "too few clips"]

Clips = dict[str, Result]
"""By the clip's name."""

CONFIDENCE = 0.95
FEWEST_CLIPS = 6
"""With fewer, differences all of one sign come about by chance more than 5% of the time."""
_RESAMPLES = 9999
_BATCH = 1000
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean over clips in percent, or a share of all clips' events, with its 95% interval."""

    mean: float
    """Of the clips that define it; NaN where none does."""
    low: float
    high: float
    """NaN with fewer than two clips: one clip says nothing of the spread."""
    clips: int
    """That define it."""
    count: int
    """What it is over: the clips, or the events in them."""


@dataclass(frozen=True)
class Difference:
    """A method's metric less the reference's, clip by clip."""

    estimate: Estimate

    @property
    def verdict(self) -> Verdict:
        """What it comes to, more being better; what may be noise is not called a difference."""
        if self.estimate.clips < FEWEST_CLIPS:
            return "too few clips"
        if self.estimate.low > 0:
            return "better"
        return "worse" if self.estimate.high < 0 else "no clear difference"


@dataclass(frozen=True)
class MethodSummary:
    """One method on all its clips."""

    name: str
    clips: int
    means: Mapping[str, Estimate]
    """By metric and kind of event."""
    differences: Mapping[str, Difference]
    """By metric and kind of event, from the reference; empty for the reference itself."""
    curves: Mapping[str, Curve]
    """By title, pooled over clips."""
    frames_per_second: float
    """All frames by all seconds; NaN where no time was taken."""
    worst: tuple[Result, ...]
    """Clips that come with a picture, the least headline metric first."""


@dataclass(frozen=True)
class Summary:
    """All methods, the reference first."""

    metrics: tuple[str, ...]
    """Names of the means over clips, the headline first."""
    events: tuple[str, ...]
    """Names of the shares of events, pooled over clips; of what happens in any clip."""
    methods: tuple[MethodSummary, ...]

    @property
    def reference(self) -> MethodSummary:
        """The method that the others are compared with."""
        return self.methods[0]


def summarise(results: Sequence[Result], reference: str) -> Summary:
    """Sum up methods x clips, and compare each method with the one named ``reference``.

    Raises:
        InputError: there is no clip, no result of the reference, or one clip twice for a method.

    """
    if not results:
        raise InputError("no clip was evaluated. Give at least one.")
    by_method = _by_method(results)
    if reference not in by_method:
        raise InputError(f"{reference} has no results. Name one of {', '.join(by_method)}.")
    metrics = tuple(results[0].metrics)
    events = tuple(dict.fromkeys(name for result in results for name in result.events))
    names = metrics + events
    compared_with = by_method.pop(reference)
    first = _method(reference, compared_with, names, {})
    rest = (
        _method(name, clips, names, _differences(clips, compared_with, names))
        for name, clips in by_method.items()
    )
    return Summary(metrics, events, (first, *rest))


def _by_method(results: Sequence[Result]) -> dict[str, Clips]:
    """Results by method and clip, both in the order in which they came."""
    by_method: dict[str, Clips] = {}
    for result in results:
        clips = by_method.setdefault(result.method, {})
        if result.clip in clips:
            raise InputError(
                f"clip {result.clip} comes twice for {result.method}. Give each a name of its own."
            )
        clips[result.clip] = result
    return by_method


def _method(
    name: str, clips: Clips, names: tuple[str, ...], differences: Mapping[str, Difference]
) -> MethodSummary:
    results = list(clips.values())
    seconds = sum(result.seconds for result in results)
    return MethodSummary(
        name=name,
        clips=len(results),
        means={name: _estimate(results, name) for name in names},
        differences=differences,
        curves=_pooled(results),
        frames_per_second=sum(result.frames for result in results) / seconds if seconds else np.nan,
        worst=_worst(results, names[0]),
    )


def _differences(clips: Clips, reference: Clips, names: tuple[str, ...]) -> dict[str, Difference]:
    """By metric and kind of event, over the clips that both have."""
    pairs = [(clips[name], reference[name]) for name in clips if name in reference]
    return {
        name: Difference(
            estimate(
                [own.percent(name) - other.percent(name) for own, other in pairs],
                # The truth alone decides what happens in a clip, so both have as many events.
                [own.count(name) for own, _ in pairs],
            )
        )
        for name in names
    }


def _estimate(results: Sequence[Result], name: str) -> Estimate:
    return estimate(
        [result.percent(name) for result in results], [result.count(name) for result in results]
    )


def estimate(values: Sequence[float], counts: Sequence[int] | None = None) -> Estimate:
    """Mean of one value a clip, NaN left out, with its confidence interval.

    With ``counts``, how often each clip counts: a mean of shares is that of all their events.
    """
    known = ~np.isnan(np.asarray(values, np.float64))
    defined = np.asarray(values, np.float64)[known]
    weights = (np.ones(len(values)) if counts is None else np.asarray(counts, np.float64))[known]
    if not len(defined):
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    low, high = _interval(defined, weights) if len(defined) > 1 else (np.nan, np.nan)
    mean = np.average(defined, weights=weights)
    return Estimate(float(mean), low, high, len(defined), int(weights.sum()))


def _interval(values: Doubles, weights: Doubles) -> tuple[float, float]:
    """Bootstrap over clips: BCa, or percentiles where all resamples have nearly one mean.

    With few clips both are too narrow, by the spread's divisor n and by leaving Student's t out.
    The level is widened to make up for it: Hesterberg, What Teachers Should Know About the
    Bootstrap, The American Statistician 69 (2015), "expanded percentile interval".
    """
    count = len(values)
    tail = norm.sf(t.isf((1 - CONFIDENCE) / 2, count - 1) * np.sqrt(count / (count - 1)))
    options = {"confidence_level": 1 - 2 * tail, "batch": _BATCH, "paired": True}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        data = (values, weights)
        done = bootstrap(data, _mean, n_resamples=_RESAMPLES, rng=_SEED, **options)
    if not np.isfinite(done.confidence_interval).all():
        options |= {"n_resamples": 0, "bootstrap_result": done, "method": "percentile"}
        done = bootstrap(data, _mean, **options)
    low, high = done.confidence_interval
    return float(low), float(high)


def _mean(values: Doubles, weights: Doubles, axis: int) -> Doubles:
    return np.asarray(np.average(values, axis=axis, weights=weights))


def _pooled(results: Sequence[Result]) -> dict[str, Curve]:
    """Curves by title, those of all clips added up."""
    titles = dict.fromkeys(title for result in results for title in result.curves)
    return {
        title: reduce(add, (result.curves[title] for result in results if title in result.curves))
        for title in titles
    }


def _worst(results: Sequence[Result], headline: str) -> tuple[Result, ...]:
    pictured = [
        result
        for result in results
        if result.picture is not None and not np.isnan(result.metrics[headline])
    ]
    return tuple(sorted(pictured, key=lambda result: result.metrics[headline]))
