"""Which points of a labelled picture are worth following."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.coordinates import pixel_centres


def pick_pixels(
    rng: np.random.Generator,
    labels: NDArray[np.uint8],
    foreground: NDArray[np.bool_],
    count: int,
    share: float,
) -> NDArray[np.float64]:
    """Draw the centres (x, y) of pixels, ``share`` of them in ``foreground [H, W]``.

    Only pixels whose eight neighbours carry the same label are drawn, since at an edge between
    ``labels [H, W]`` it is anyone's guess which side a point belongs to. Where one side has no such
    pixel all come from the other.

    Returns:
        Positions ``[count, 2]`` in the raster convention.

    """
    square = np.ones((3, 3), np.uint8)
    steady = cv2.dilate(labels, square) == cv2.erode(labels, square)
    # Outside the picture a neighbour is unknown.
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
