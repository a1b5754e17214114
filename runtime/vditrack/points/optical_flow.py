"""Optical flow from frame to frame on the original pixels: pyramidal Lucas-Kanade."""

import cv2
import numpy as np

from vditrack.arrays import Bools, Floats, Frame, Grey
from vditrack.coordinates import pixel_centres

_WINDOW = (15, 15)
_LEVELS = 4
_TEXTURE = 1e-4
"""OpenCV's own threshold: on flatter surfaces flow is worth little."""
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03)


def grey_levels(frame: Frame) -> Grey:
    """Grey levels uint8 [H, W] of a uint8 RGB frame [H, W, 3]."""
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def at_size(image: Grey, size: tuple[int, ...]) -> Grey:
    """Bring an image to (height, width), so that it can be compared with others of that size."""
    if image.shape == size:
        return image
    method = cv2.INTER_AREA if image.shape > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def flow_there_and_back(
    previous: Grey, current: Grey, start: Floats, guess: Floats, least_texture: float = _TEXTURE
) -> tuple[Floats, Floats]:
    """Follow points by optical flow, and back again.

    Args:
        previous: the frame before, uint8 [H, W].
        current: this frame, of the same size.
        start: [N, 2] (x, y) in pixels of the previous frame; N is at least 1.
        guess: [N, 2] (x, y) in pixels of this frame, where the flow begins to look.
        least_texture: of a surface that is followed: OpenCV's least eigenvalue of its gradients.

    Returns:
        [N, 2] (x, y) in pixels of this frame, and [N] pixels from the start to where the way back
        leads; inf where there was nothing to follow.

    """
    there, found = _flow(previous, current, start, guess, least_texture)
    back, found_back = _flow(current, previous, there, start, least_texture)
    distance = np.linalg.norm(back - start, axis=1).astype(np.float32)
    return there, np.where(found & found_back, distance, np.float32(np.inf))


def leads_back(distance: Floats, size: tuple[int, ...]) -> Bools:
    """Whether flow that misses its start by distances [N] may be trusted in frames of a size."""
    # One pixel is what the method's users allow in a video of about 256 pixels.
    return np.asarray(distance <= max(1.0, max(size) / 256), np.bool_)


def _flow(
    source: Grey, target: Grey, start: Floats, guess: Floats, least_texture: float
) -> tuple[Floats, Bools]:
    # OpenCV counts from the first pixel's centre.
    centre = pixel_centres(np.zeros(1, np.intp))
    points, status, _ = cv2.calcOpticalFlowPyrLK(
        source,
        target,
        np.ascontiguousarray(start - centre),
        np.ascontiguousarray(guess - centre),
        winSize=_WINDOW,
        maxLevel=_LEVELS,
        criteria=_CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        minEigThreshold=least_texture,
    )
    return points.reshape(-1, 2) + centre, status.reshape(-1).astype(np.bool_)
