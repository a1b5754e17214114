"""Corners of an image: places that optical flow tracks well (Shi and Tomasi, 1994)."""

import cv2
import numpy as np

from vditrack.arrays import Floats, Grey, Mask
from vditrack.coordinates import cells_from_pixels, pixels_from_cells

_MIN_SPACING = 0.5
"""Minimum distance between corners, as a share of the spacing that a grid would have."""
_BLOCK = 3
"""Width of the window in which a corner's quality is measured, in pixels; OpenCV's default."""


def detect_corners(
    image: Grey,
    count: int,
    target: int,
    alive: Floats,
    quality: float,
    allowed: Mask | None = None,
) -> Floats:
    """Return corners away from the points that are there, float32 [M, 2] (x, y), the best first.

    Args:
        image: grey levels uint8 [H, W].
        count: maximum number of corners to return.
        target: total number of points in the end; it determines the minimum distance of corners.
        alive: positions [N, 2] of the points that are there.
        quality: minimum quality of a corner, as a share of the best corner's in the whole image.
        allowed: uint8 [H, W], not 0 where corners may be; None for everywhere.

    """
    height, width = image.shape
    free = np.full((height, width), 255, np.uint8) if allowed is None else allowed.copy()
    spacing = _MIN_SPACING * np.sqrt(np.count_nonzero(free) / target)
    inside = ((alive >= 0) & (alive < (width, height))).all(axis=1)
    for centre in cells_from_pixels(alive[inside], 1).round():
        cv2.circle(free, centre.astype(int).tolist(), round(spacing), 0, cv2.FILLED)
    least = quality * _best_share(image, free)
    if least >= 1:
        return np.zeros((0, 2), np.float32)
    corners = cv2.goodFeaturesToTrack(image, count, least, spacing, mask=free, blockSize=_BLOCK)
    if corners is None:
        return np.zeros((0, 2), np.float32)
    return np.asarray(pixels_from_cells(corners[:, 0], 1), np.float32)


def _best_share(image: Grey, free: Mask) -> float:
    """Return the quality of the best corner, in units of the best one where the mask is not 0.

    OpenCV compares corners with the best one in the mask, which may be noise.
    """
    if free.all():
        return 1.0
    qualities = cv2.cornerMinEigenVal(image, _BLOCK)
    best = float(qualities[free > 0].max(initial=0))
    return float(qualities.max()) / best if best > 0 else np.inf
