"""The baseline of speed: OpenCV's pyramidal Lucas-Kanade, there and back, on the same points."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.evaluation.baselines.point_baselines import LucasKanade


class LucasKanadeStream:
    """Follows the same points [N, 2] (x, y) from each frame to the next; its answer is not kept."""

    def __init__(self, points: NDArray[np.float32]) -> None:
        """Take the points in pixels of the frames."""
        self._points = points
        self._peer = LucasKanade()
        self._before: NDArray[np.uint8] | None = None

    def push(self, frame: NDArray[np.uint8], stamp: float) -> NDArray[np.bool_] | None:
        """Which points [N] lead back to within 2 pixels, from uint8 [H, W, 3] RGB; None at first.

        The stamp is not read.
        """
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        before, self._before = self._before, grey
        return None if before is None else self._peer.step(before, grey, self._points)[1]
