"""What the results of many clips say together, and whether a difference is more than noise."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, norm, t

from vditrack.errors import InputError
from vditrack.evaluation.results import Curve, Floats, Result

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
    """A mean over clips in percent, with its 95% confidence interval."""

    mean: float
    """Of the clips that define the metric; NaN where none does."""
    low: float
    high: float
    """NaN with fewer than two clips: one clip says nothing of the spread."""
    clips: int
    """That define the metric."""


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
    """By metric."""
    differences: Mapping[str, Difference]
    """By metric, from the reference; empty for the reference itself."""
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
    """Names, the headline first."""
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
    compared_with = by_method.pop(reference)
    first = _method(reference, compared_with, metrics, {})
    rest = (
        _method(name, clips, metrics, _differences(clips, compared_with, metrics))
        for name, clips in by_method.items()
    )
    return Summary(metrics, (first, *rest))


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
    name: str, clips: Clips, metrics: tuple[str, ...], differences: Mapping[str, Difference]
) -> MethodSummary:
    results = list(clips.values())
    seconds = sum(result.seconds for result in results)
    return MethodSummary(
        name=name,
        clips=len(results),
        means={name: estimate([result.metrics[name] for result in results]) for name in metrics},
        differences=differences,
        curves=_pooled(results),
        frames_per_second=sum(result.frames for result in results) / seconds if seconds else np.nan,
        worst=_worst(results, metrics[0]),
    )


def _differences(clips: Clips, reference: Clips, metrics: tuple[str, ...]) -> dict[str, Difference]:
    """By metric, over the clips that both have."""
    pairs = [(clips[name].metrics, reference[name].metrics) for name in clips if name in reference]
    return {
        metric: Difference(estimate([own[metric] - other[metric] for own, other in pairs]))
        for metric in metrics
    }


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of one value a clip, NaN left out, with its confidence interval."""
    defined = np.array([value for value in values if not np.isnan(value)], np.float64)
    if not len(defined):
        return Estimate(np.nan, np.nan, np.nan, 0)
    low, high = _interval(defined) if len(defined) > 1 else (np.nan, np.nan)
    return Estimate(float(defined.mean()), low, high, len(defined))


def _interval(values: Floats) -> tuple[float, float]:
    """Bootstrap over clips: BCa, or percentiles where all resamples have nearly one mean.

    With few clips both are too narrow, by the spread's divisor n and by leaving Student's t out.
    The level is widened to make up for it: Hesterberg, What Teachers Should Know About the
    Bootstrap, The American Statistician 69 (2015), "expanded percentile interval".
    """
    count = len(values)
    tail = norm.sf(t.isf((1 - CONFIDENCE) / 2, count - 1) * np.sqrt(count / (count - 1)))
    options = {"confidence_level": 1 - 2 * tail, "batch": _BATCH}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        done = bootstrap((values,), np.mean, n_resamples=_RESAMPLES, rng=_SEED, **options)
    if not np.isfinite(done.confidence_interval).all():
        options |= {"n_resamples": 0, "bootstrap_result": done, "method": "percentile"}
        done = bootstrap((values,), np.mean, **options)
    low, high = done.confidence_interval
    return float(low), float(high)


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
