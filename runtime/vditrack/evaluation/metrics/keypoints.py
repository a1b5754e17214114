"""Followed joints of animals against the truth: PCK-T on BADJA."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SHARE = 0.2
"""Of the square root of the animal's area."""
_PIXELS = 3.0


@dataclass(frozen=True)
class KeypointScores:
    """Shares of joints that were followed, in percent; NaN where no joint is counted."""

    by_area: float
    """PCK-T: nearer to the truth than 0.2 times the square root of the animal's area."""
    within_3: float
    """Nearer than 3 pixels of the masks' raster."""


def keypoint_scores(
    true_points: NDArray[np.float32],
    visible: NDArray[np.bool_],
    masks: NDArray[np.uint8],
    points: NDArray[np.float32],
) -> KeypointScores:
    """Score joints that were asked for where they are in frame 0.

    Counted are the later frames in which a joint is annotated as visible. A distance has to be
    less than its threshold, as in the published evaluations of PIPs (arXiv 2204.04153) and
    CoTracker (arXiv 2307.07635). Those two also count joints that are not visible in frame 0, from
    wherever the annotation has them; here these are left out, because there is nothing to ask for.

    Args:
        true_points: [N, T, 2] (x, y) in pixels of the masks.
        visible: [N, T] which of them are annotated.
        masks: [T, H, W] nonzero on the animal, at least in annotated frames.
        points: [N, T, 2] (x, y), the same joints as they were followed.

    """
    counted = visible & visible[:, :1]
    counted[:, :1] = False
    if not counted.any():
        return KeypointScores(np.nan, np.nan)
    difference = points.astype(np.float64) - true_points
    distance = np.hypot(difference[..., 0], difference[..., 1])
    area = np.count_nonzero(masks, axis=(1, 2))
    by_area = distance < _SHARE * np.sqrt(area)
    within_3 = distance < _PIXELS
    return KeypointScores(
        100 * float(by_area[counted].mean()), 100 * float(within_3[counted].mean())
    )
