"""The baseline of speed: OpenCV's pyramidal Lucas-Kanade, forward and backward."""

import cv2
import numpy as np

from vditrack.arrays import Bools, Floats, Frame, Grey
from vditrack.evaluation.baselines.point_baselines import LucasKanade


class LucasKanadeStream:
    """Tracks the same points from each frame to the next; the positions found are not kept."""

    def __init__(self, points: Floats) -> None:
        """Track points float32 [N, 2] (x, y) in pixels of the frames."""
        self._points = points
        self._baseline = LucasKanade()
        self._before: Grey | None = None

    def push(self, frame: Frame, stamp: float) -> Bools | None:
        """Track the points from the previous frame into this one.

        Args:
            frame: uint8 [H, W, 3] RGB.
            stamp: not read.

        Returns:
            bool [N], whether the forward-backward error is at most 2 pixels; None for the first
            frame.

        """
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        before, self._before = self._before, grey
        return None if before is None else self._baseline.step(before, grey, self._points)[1]
