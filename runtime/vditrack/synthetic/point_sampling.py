"""Draws query points from a segmented frame."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Doubles
from vditrack.coordinates import pixel_centres


def pick_pixels(
    rng: np.random.Generator,
    labels: NDArray[np.uint8],
    foreground: Bools,
    count: int,
    share: float,
) -> Doubles:
    """Draw pixels in the interior of segments, and return their centres.

    Only pixels whose eight neighbours have the same label are drawn, because a point on an edge
    belongs to neither side unambiguously. If foreground or background has no such pixel, all points
    come from the other.

    Args:
        rng: Random generator.
        labels: Segment of each pixel, uint8 [H, W].
        foreground: Foreground, bool [H, W].
        count: Number of points.
        share: Share of the points that lie in the foreground, 0 to 1.

    Returns:
        Positions (x, y), float64 [count, 2], in pixels; (0, 0) is the outer corner of the
        upper-left pixel.

    """
    square = np.ones((3, 3), np.uint8)
    steady = cv2.dilate(labels, square) == cv2.erode(labels, square)
    # Pixels on the border have unknown neighbours.
    steady[[0, -1]] = steady[:, [0, -1]] = False
    sides = [np.argwhere(steady & foreground), np.argwhere(steady & ~foreground)]
    wanted = round(share * count) if len(sides[1]) else count
    wanted = wanted if len(sides[0]) else 0
    drawn = [
        side[rng.integers(len(side), size=number)]
        for side, number in zip(sides, (wanted, count - wanted), strict=True)
        if number
    ]
    return np.asarray(pixel_centres(np.concatenate(drawn)[:, ::-1]), np.float64)
