"""The result of tracking a clip, and the files it is written to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tracks:
    """Tracks of N points over T frames.

    Coordinates are (x, y) in pixels of the original frame; (0, 0) is the upper-left corner of the
    upper-left pixel, so the first pixel's centre is (0.5, 0.5).
    """

    queries: NDArray[np.float32]
    """[N, 3] (t, x, y): where each track was asked for."""
    points: NDArray[np.float32]
    """[N, T, 2] (x, y); a best guess where the point is invisible."""
    visible: NDArray[np.bool_]
    """[N, T]"""
    confidence: NDArray[np.float32]
    """[N, T] in [0, 1]; at least 0.5 exactly where the point is visible."""
    fb_error: NDArray[np.float32]
    """[N, T] forward-backward distance in model pixels (RMS over frames); inf where unknown."""
