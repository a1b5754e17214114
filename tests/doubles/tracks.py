"""Two tracks of two frames."""

import numpy as np

from vditrack import Tracks

TRACKS = Tracks(
    queries=np.float32([[0, 1.5, 2.5], [1, 3.25, 4]]),
    points=np.float32([[[1.5, 2.5], [1.75, 2.25]], [[3, 4.5], [3.25, 4]]]),
    visible=np.array([[True, False], [True, True]]),
    confidence=np.float32([[1, 0.25], [0.75, 1]]),
    forward_backward_error=np.float32([[0, np.inf], [1.5, 0]]),
)
TIMES = np.array([0.0, 0.04])
"""Times of the frames, in seconds."""
