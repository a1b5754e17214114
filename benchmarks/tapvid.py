"""TAP-Vid's metrics, from their published definition (arXiv 2211.03726, section 3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Scores:
    """Of one video or their mean, in percent."""

    average_jaccard: float
    position_accuracy: float
    occlusion_accuracy: float

    def __str__(self) -> str:
        """Print AJ, delta and OA."""
        return (
            f"AJ {self.average_jaccard:5.1f}  delta {self.position_accuracy:5.1f}  "
            f"OA {self.occlusion_accuracy:5.1f}"
        )


def score(
    query_frames: NDArray[np.int64],
    true_points: NDArray[np.float32],
    true_visible: NDArray[np.bool_],
    points: NDArray[np.float32],
    visible: NDArray[np.bool_],
) -> Scores:
    """Score one video under `first`: only frames after a track's query count.

    Args:
        query_frames: [N].
        true_points: [N, T, 2] (x, y) on the 256 x 256 raster.
        true_visible: [N, T].
        points: [N, T, 2] predicted, on the same raster.
        visible: [N, T] predicted.

    """
    counted = np.arange(true_points.shape[1]) > query_frames[:, None]
    squared = ((points - true_points) ** 2).sum(axis=2)
    truth = true_visible & counted
    shares, jaccards = [], []
    for threshold in THRESHOLDS:
        within = squared < threshold**2
        shares.append((within & truth).sum() / truth.sum())
        true_positive = (within & truth & visible).sum()
        false_positive = (visible & counted & ~(true_visible & within)).sum()
        jaccards.append(true_positive / (truth.sum() + false_positive))
    agreement = (visible == true_visible)[counted].mean()
    return Scores(
        100 * float(np.mean(jaccards)), 100 * float(np.mean(shares)), 100 * float(agreement)
    )


def mean(scores: list[Scores]) -> Scores:
    """Plain mean over videos."""
    return Scores(
        float(np.mean([s.average_jaccard for s in scores])),
        float(np.mean([s.position_accuracy for s in scores])),
        float(np.mean([s.occlusion_accuracy for s in scores])),
    )
