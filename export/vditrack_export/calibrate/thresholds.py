"""From which confidence on a point is called visible: where the official metrics are high."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.bundle.configuration import Visibility
from vditrack.evaluation.metrics.points import PointScores
from vditrack_export.calibrate.trials import Trial

Counts = NDArray[np.float64]

THRESHOLDS: Counts = np.arange(1, 41) / 50
"""Confidences 0.02 to 0.8."""
FLAT = 0.5
"""Points of the objective that are no difference."""


@dataclass(frozen=True)
class Means:
    """Official metrics in percent, means over the clips that define them."""

    average_jaccard: float
    position_accuracy: float
    occlusion_accuracy: float

    @property
    def objective(self) -> float:
        """What is made as high as it gets."""
        return self.average_jaccard + self.occlusion_accuracy


@dataclass(frozen=True)
class Sweep:
    """Metrics by threshold, positions unchanged."""

    thresholds: tuple[float, ...]
    means: tuple[Means, ...]

    @property
    def best(self) -> int:
        """Index of the lowest threshold whose objective is as good as the highest.

        The objective is flat there, and real surfaces change more in look than rendered ones.
        """
        objectives = np.array([means.objective for means in self.means])
        return int(np.argmax(objectives >= objectives.max() - FLAT))


def mean_scores(scores: Sequence[PointScores]) -> Means:
    """Means over clips, of those that define a metric."""
    table = np.array(
        [(s.average_jaccard, s.position_accuracy, s.occlusion_accuracy) for s in scores]
    )
    defined = np.isfinite(table)
    sums = np.where(defined, table, 0).sum(axis=0)
    return Means(*(sums / np.maximum(defined.sum(axis=0), 1)).tolist())


def sweep(trials: Sequence[Trial], weights: Visibility) -> Sweep:
    """Score every threshold on the confidences that weights give to what was recorded."""
    confidences = [trial.confidence(weights) for trial in trials]
    means = [
        mean_scores(
            [
                trial.scores(confidence >= threshold)
                for trial, confidence in zip(trials, confidences, strict=True)
            ]
        )
        for threshold in THRESHOLDS
    ]
    return Sweep(tuple(THRESHOLDS.tolist()), tuple(means))


def moved(weights: Visibility, threshold: float) -> Visibility:
    """Return weights whose confidence is 0.5 where it was ``threshold``, in (0, 1)."""
    bias = weights.bias - float(np.log(threshold / (1 - threshold)))
    return msgspec.structs.replace(weights, bias=bias)
