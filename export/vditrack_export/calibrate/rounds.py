"""Rounds of tracking and fitting.

Templates are updated while points are visible, so the signals depend on the weights: tracking and
fitting alternate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from vditrack.bundle.configuration import FlowTracking, Matching, Visibility
from vditrack.errors import InputError
from vditrack_export.calibrate.clips import EncodedClip
from vditrack_export.calibrate.fit import area_under_curve, fit_weights
from vditrack_export.calibrate.thresholds import (
    FLAT,
    Means,
    Sweep,
    average_scores,
    shift_threshold,
    sweep_thresholds,
)
from vditrack_export.calibrate.trials import (
    Rows,
    Trial,
    collect_rows,
    score_still_points,
    track_clip,
)

ROUNDS = 2
PASSES = ROUNDS + 1
"""How often each clip is tracked: with the bundle's own weights, and with those of each round."""
_DIGITS = 4
"""Significant digits of a weight."""
_SIGNS = np.array([1.0, 1.0, 1.0, -1.0])
"""1 for a signal that is high for visible points, -1 for one that is low."""


@dataclass(frozen=True)
class WeightsResult:
    """Weights and the metrics of tracking with them."""

    weights: Visibility
    means: Means


@dataclass(frozen=True)
class Fit:
    """The outcome of one round of fitting."""

    weights: Visibility
    sweep: Sweep
    """The metrics by threshold, before the bias was moved to the best threshold."""
    areas: tuple[float, ...]
    """The area under the curve of each signal, in the order of `Visibility.of_evidence`, and of all
    signals together."""


@dataclass(frozen=True)
class Calibration:
    """All weights that were tried, and the fits that they come from."""

    results: tuple[WeightsResult, ...]
    """The bundle's own weights, then those of each round."""
    fits: tuple[Fit, ...]
    """One fit per round."""
    still: Means
    """The metrics of doing nothing: points that do not move and are always visible."""

    @property
    def best(self) -> int:
        """The index of the last round, or 0 if the bundle's own weights track better."""
        own, last = self.results[0].means.objective, self.results[-1].means.objective
        return 0 if own > last + FLAT else len(self.results) - 1

    @property
    def chosen(self) -> WeightsResult:
        """The result of the chosen weights."""
        return self.results[self.best]

    @property
    def fit(self) -> Fit:
        """The fit of the chosen weights; the last fit if the bundle's own weights are chosen."""
        return self.fits[self.best - 1]


def list_warnings(found: Calibration) -> list[str]:
    """Return why the chosen weights may be worse than doing nothing."""
    weights, means, still = found.chosen.weights, found.chosen.means, found.still
    warnings = []
    if means.position_accuracy < still.position_accuracy:
        warnings.append(
            f"the points are tracked worse (δ {means.position_accuracy:.1f}) than if they did not "
            f"move ({still.position_accuracy:.1f}), so the weights have no meaning. Calibrate on "
            "clips that the bundle can track, or select other features."
        )
    if means.occlusion_accuracy < still.occlusion_accuracy:
        warnings.append(
            f"the weights tell visible points worse (OA {means.occlusion_accuracy:.1f}) than if "
            f"all counted as visible ({still.occlusion_accuracy:.1f}). Calibrate on more clips, "
            "with occlusions."
        )
    names, signs = Visibility.__struct_fields__[1:], _SIGNS.tolist()
    reversed_weights = [
        f"{name.replace('_', ' ')} ({weight:g})"
        for name, weight, sign in zip(names, weights.of_evidence, signs, strict=True)
        if weight * sign < 0
    ]
    if reversed_weights:
        warnings.append(
            f"the sign of {', '.join(reversed_weights)} is reversed: worse evidence would raise "
            "the confidence. Calibrate on more clips, or on others."
        )
    if found.best == 0:
        warnings.append("the bundle's own weights track better than the fitted ones, and stay.")
    return warnings


def calibrate_weights(
    clips: Sequence[EncodedClip], settings: Matching, report_share: Callable[[float], None]
) -> Calibration:
    """Find the weights of visibility with which points are tracked best.

    Args:
        clips: clips with their features.
        settings: the bundle's settings, whose weights are the starting point.
        report_share: called with the share of a clip that was tracked since the last call; each
            clip is tracked `PASSES` times.

    Raises:
        InputError: the bundle does not track by optical flow, or all labels are equal.

    """
    flow_tracking = require_flow_tracking(settings)

    def track(weights: Visibility) -> list[Trial]:
        return [track_clip(clip, settings, flow_tracking, weights, report_share) for clip in clips]

    trials = track(flow_tracking.visibility)
    results, fits = [WeightsResult(flow_tracking.visibility, _average(trials))], []
    for _ in range(ROUNDS):
        fits.append(_fit_trials(trials))
        trials = track(fits[-1].weights)
        results.append(WeightsResult(fits[-1].weights, _average(trials)))
    still = average_scores([score_still_points(clip) for clip in clips])
    return Calibration(tuple(results), tuple(fits), still)


def require_flow_tracking(settings: Matching) -> FlowTracking:
    """Return a bundle's settings of the flow tracker.

    Raises:
        InputError: the bundle has none.

    """
    if settings.flow_tracking is None:
        raise InputError(
            "the bundle does not track by optical flow, so it has no weights of visibility. Add "
            "[matching.flow_tracking] to its card and export it again."
        )
    return settings.flow_tracking


def round_weights(weights: Visibility) -> Visibility:
    """Return weights rounded to the significant digits that a card has."""
    plain = msgspec.structs.asdict(weights)
    return Visibility(**{name: float(f"{value:.{_DIGITS}g}") for name, value in plain.items()})


def _average(trials: Sequence[Trial]) -> Means:
    return average_scores([trial.scores() for trial in trials])


def _check_labels(rows: Rows) -> None:
    """Raise an `InputError` if the labels are not of both classes."""
    if not len(rows.seen):
        raise InputError(
            "the clips have no point that is visible before their last frame. Give others."
        )
    if rows.seen.all() or not rows.seen.any():
        always = "always" if rows.seen.all() else "never"
        raise InputError(
            f"in these clips points are {always} visible where they are tracked to, so there is "
            "nothing to tell apart. Give more clips, or others."
        )


def _fit_trials(trials: Sequence[Trial]) -> Fit:
    rows = collect_rows(trials)
    _check_labels(rows)
    likeliest = fit_weights(rows.evidence, rows.seen, rows.weights)
    sweep = sweep_thresholds(trials, likeliest)
    together = rows.evidence @ np.array(likeliest.of_evidence)
    signals = [*(rows.evidence * _SIGNS).T, together]
    areas = [area_under_curve(signal, rows.seen, rows.weights) for signal in signals]
    weights = round_weights(shift_threshold(likeliest, sweep.thresholds[sweep.best]))
    return Fit(weights, sweep, tuple(areas))
