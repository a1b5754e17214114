"""Bilinear interpolation, plainly, as the truth of tests."""

import numpy as np
from numpy.typing import NDArray


def sample_bilinearly(frame: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return colours [N, 3] at raster positions [N, 2], at least half a pixel inside the frame."""
    corner = np.floor(points - 0.5).astype(int)
    right, down = (points - 0.5 - corner).T[..., None]
    x, y = corner.T
    above = frame[y, x] * (1 - right) + frame[y, x + 1] * right
    below = frame[y + 1, x] * (1 - right) + frame[y + 1, x + 1] * right
    return np.asarray(above * (1 - down) + below * down)
