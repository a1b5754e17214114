"""Accuracy of tracked keypoints: PCK-T of BADJA."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import ImageSequence

_AREA_SHARE = 0.2
"""Threshold as a share of the square root of the animal's area."""
_PIXELS = 3.0
"""Threshold in pixels."""


@dataclass(frozen=True)
class KeypointScores:
    """Shares of joints within a threshold, in percent; NaN if no joint is counted."""

    by_area: float
    """PCK-T: share nearer to the truth than 0.2 times the square root of the animal's area."""
    within_3: float
    """Share nearer than 3 pixels of the masks."""


def keypoint_scores(
    true_points: NDArray[np.float32],
    visible: NDArray[np.bool_],
    masks: ImageSequence,
    points: NDArray[np.float32],
) -> KeypointScores:
    """Score joints whose queries are in frame 0.

    The later frames in which a joint is annotated as visible are counted. A distance must be less
    than its threshold, as in the published evaluations of PIPs (arXiv 2204.04153) and CoTracker
    (arXiv 2307.07635). Those two also count joints that are not visible in frame 0; here these have
    no query and are left out.

    Args:
        true_points: True positions, float32 [N, T, 2] (x, y), in pixels of the masks.
        visible: Which positions are annotated as visible, bool [N, T].
        masks: Masks, uint8 [T, H, W], nonzero on the animal at least in annotated frames.
        points: Tracked positions of the same joints, float32 [N, T, 2] (x, y).

    """
    counted = visible & visible[:, :1]
    counted[:, :1] = False
    if not counted.any():
        return KeypointScores(np.nan, np.nan)
    difference = points.astype(np.float64) - true_points
    distance = np.hypot(difference[..., 0], difference[..., 1])
    area = np.array([np.count_nonzero(mask) for mask in masks])
    by_area = distance < _AREA_SHARE * np.sqrt(area)
    within_3 = distance < _PIXELS
    return KeypointScores(
        100 * float(by_area[counted].mean()), 100 * float(within_3[counted].mean())
    )
