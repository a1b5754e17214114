"""What people use today: OpenCV's pyramidal Lucas-Kanade with a forward-backward check."""

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOW, LEVELS, TOLERANCE = (15, 15), 4, 2.0


def step(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Follow points [N, 2] between grey frames; which of them lead back within 2 pixels."""
    options = {"winSize": WINDOW, "maxLevel": LEVELS}
    start = (points - 0.5).astype(np.float32)
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **options)
    returns = np.linalg.norm(back - start, axis=1) < TOLERANCE
    kept = returns & (found.ravel() == 1) & (found_back.ravel() == 1)
    size = np.array(after.shape[::-1])
    kept &= ((there > -0.5) & (there < size - 0.5)).all(axis=1)
    return there + np.float32(0.5), kept


def track(
    frames: NDArray[np.uint8], queries: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Positions [N, T, 2] and visibility [N, T] after each query; a lost point stays lost."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    points = np.repeat(queries[:, None, 1:], len(frames), axis=1).astype(np.float32)
    visible = np.zeros(points.shape[:2], np.bool_)
    starts = queries[:, 0].astype(int)
    for t in range(len(frames)):
        visible[starts == t, t] = True
        alive = np.flatnonzero(starts < t)
        if len(alive):
            moved, kept = step(grey[t - 1], grey[t], points[alive, t - 1])
            kept &= visible[alive, t - 1]
            points[alive, t:] = np.where(kept[:, None], moved, points[alive, t - 1])[:, None]
            visible[alive, t] = kept
    return points, visible
