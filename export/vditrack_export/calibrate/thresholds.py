"""The confidence from which a point is reported as visible, chosen by the official metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from vditrack.arrays import Doubles
from vditrack.bundle.configuration import Visibility
from vditrack.evaluation.metrics.points import PointScores
from vditrack_export.calibrate.trials import Trial

THRESHOLDS: Doubles = np.arange(1, 41) / 50
"""The confidences that are tried: 0.02 to 0.8."""
FLAT = 0.5
"""Difference of the objective, in points, that does not count as a difference."""


@dataclass(frozen=True)
class Means(PointScores):
    """TAP-Vid's metrics in percent, each averaged over the clips that define it."""

    @property
    def objective(self) -> float:
        """The sum that is maximised: average Jaccard + occlusion accuracy."""
        return self.average_jaccard + self.occlusion_accuracy


@dataclass(frozen=True)
class Sweep:
    """The metrics at each threshold; positions do not depend on it."""

    thresholds: tuple[float, ...]
    means: tuple[Means, ...]

    @property
    def best(self) -> int:
        """The index of the lowest threshold whose objective is within `FLAT` of the highest.

        The objective is flat there, and real surfaces change more in appearance than rendered ones.
        """
        objectives = np.array([means.objective for means in self.means])
        return int(np.argmax(objectives >= objectives.max() - FLAT))


def average_scores(scores: Sequence[PointScores]) -> Means:
    """Return each metric's mean over the clips that define it."""
    table = np.array(
        [(s.average_jaccard, s.position_accuracy, s.occlusion_accuracy) for s in scores]
    )
    defined = np.isfinite(table)
    sums = np.where(defined, table, 0).sum(axis=0)
    return Means(*(sums / np.maximum(defined.sum(axis=0), 1)).tolist())


def sweep_thresholds(trials: Sequence[Trial], weights: Visibility) -> Sweep:
    """Return the metrics at every threshold on the confidences that the weights give."""
    confidences = [trial.confidence(weights) for trial in trials]
    means = [
        average_scores(
            [
                trial.scores(confidence >= threshold)
                for trial, confidence in zip(trials, confidences, strict=True)
            ]
        )
        for threshold in THRESHOLDS
    ]
    return Sweep(tuple(THRESHOLDS.tolist()), tuple(means))


def shift_threshold(weights: Visibility, threshold: float) -> Visibility:
    """Return weights whose confidence is 0.5 where it was ``threshold``, in (0, 1)."""
    bias = weights.bias - float(np.log(threshold / (1 - threshold)))
    return msgspec.structs.replace(weights, bias=bias)
