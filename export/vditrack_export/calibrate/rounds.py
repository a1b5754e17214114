"""Follow, fit, and follow again: templates depend on what is seen, and so the evidence does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from vditrack.bundle.configuration import FlowTracking, Matching, Visibility
from vditrack.errors import InputError
from vditrack_export.calibrate.clips import DescribedClip
from vditrack_export.calibrate.fit import area_under_curve, fitted
from vditrack_export.calibrate.thresholds import FLAT, Means, Sweep, mean_scores, moved, sweep
from vditrack_export.calibrate.trials import Rows, Trial, follow, rows_of

ROUNDS = 2
FOLLOWED = ROUNDS + 1
"""Times that each clip is followed: with the bundle's own weights, and with those of each round."""
_DIGITS = 4
"""That are significant in a weight."""
_MORE_IS_SEEN = np.array([1.0, 1.0, 1.0, -1.0])
"""Of each signal, whether more or less of it speaks for a point that is seen."""


@dataclass(frozen=True)
class Tried:
    """Weights, and what following with them came to."""

    weights: Visibility
    means: Means


@dataclass(frozen=True)
class Fit:
    """What a round found in the evidence."""

    weights: Visibility
    sweep: Sweep
    """Metrics by threshold on the confidences, before the bias was moved to the best of them."""
    areas: tuple[float, ...]
    """Area under the curve of each signal, in the order of `Visibility.of_evidence`, and of all of
    them together."""


@dataclass(frozen=True)
class Calibration:
    """All that was tried."""

    tried: tuple[Tried, ...]
    """The bundle's own weights, then those of each round."""
    fits: tuple[Fit, ...]
    """Of each round."""

    @property
    def best(self) -> int:
        """Index of the last round, or 0 where the bundle's own weights tracked better."""
        own, last = self.tried[0].means.objective, self.tried[-1].means.objective
        return 0 if own > last + FLAT else len(self.tried) - 1

    @property
    def chosen(self) -> Tried:
        return self.tried[self.best]

    @property
    def fit(self) -> Fit:
        """That the chosen weights come from; the last one where the bundle's own are chosen."""
        return self.fits[self.best - 1]


def calibrated(
    clips: Sequence[DescribedClip], settings: Matching, advanced: Callable[[float], None]
) -> Calibration:
    """Find the weights of visibility with which points are followed best.

    Args:
        clips: with their features.
        settings: of the bundle, which begin.
        advanced: is told the share of a clip that was followed since the last call; each clip is
            followed `FOLLOWED` times.

    Raises:
        InputError: the settings hold no points, or the clips hold nothing to tell apart.

    """
    flow_tracking = require_flow_tracking(settings)

    def trials(weights: Visibility) -> list[Trial]:
        return [follow(clip, settings, flow_tracking, weights, advanced) for clip in clips]

    found = trials(flow_tracking.visibility)
    tried, fits = [Tried(flow_tracking.visibility, _means(found))], []
    for _ in range(ROUNDS):
        fits.append(_fit(found))
        found = trials(fits[-1].weights)
        tried.append(Tried(fits[-1].weights, _means(found)))
    return Calibration(tuple(tried), tuple(fits))


def require_flow_tracking(settings: Matching) -> FlowTracking:
    """Return how a bundle holds points.

    Raises:
        InputError: it does not.

    """
    if settings.flow_tracking is None:
        raise InputError(
            "the bundle's points are not held, so no weights tell whether they are seen. Add "
            "[matching.flow_tracking] to its card and export it again."
        )
    return settings.flow_tracking


def rounded(weights: Visibility) -> Visibility:
    """Return weights as a card says them."""
    plain = msgspec.structs.asdict(weights)
    return Visibility(**{name: float(f"{value:.{_DIGITS}g}") for name, value in plain.items()})


def _means(trials: Sequence[Trial]) -> Means:
    return mean_scores([trial.scores() for trial in trials])


def _telling(rows: Rows) -> Rows:
    """Refuse rows from which nothing is to be learnt."""
    if not len(rows.seen):
        raise InputError(
            "the clips have no point that is seen before their last frame. Give others."
        )
    if rows.seen.all() or not rows.seen.any():
        always = "always" if rows.seen.all() else "never"
        raise InputError(
            f"in these clips points are {always} seen where they are followed to, so there is "
            "nothing to tell apart. Give more of them, or others."
        )
    return rows


def _fit(trials: Sequence[Trial]) -> Fit:
    rows = _telling(rows_of(trials))
    likeliest = fitted(rows.evidence, rows.seen, rows.weights)
    swept = sweep(trials, likeliest)
    together = rows.evidence @ np.array(likeliest.of_evidence)
    signals = [*(rows.evidence * _MORE_IS_SEEN).T, together]
    areas = [area_under_curve(signal, rows.seen, rows.weights) for signal in signals]
    return Fit(rounded(moved(likeliest, swept.thresholds[swept.best])), swept, tuple(areas))
