"""Optical flow from frame to frame on the original pixels: pyramidal Lucas-Kanade."""

import cv2
import numpy as np
from msgspec.structs import replace

from vditrack.arrays import Bools, Floats, Frame, Grey, Indices
from vditrack.bundle.configuration import OpticalFlow
from vditrack.coordinates import pixel_centres, pixel_unit
from vditrack.points.pyramid import Pyramid


def grey_levels(frame: Frame) -> Grey:
    """Return the grey levels uint8 [H, W] of a uint8 RGB frame [H, W, 3], or of grey levels."""
    if frame.ndim == 2:
        return frame
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def resize_grey(image: Grey, size: tuple[int, ...]) -> Grey:
    """Resize an image to (height, width), so that it can be compared with others of that size."""
    if image.shape == size:
        return image
    method = cv2.INTER_AREA if image.shape > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def track_forward_backward(
    previous: Grey, current: Grey, points: Floats, guess: Floats, settings: OpticalFlow
) -> tuple[Floats, Floats]:
    """Track points into the current frame by optical flow, and back again.

    Args:
        previous: the frame before, uint8 [H, W].
        current: this frame, of the same size.
        points: [N, 2] (x, y) in pixels of the previous frame; N is at least 1.
        guess: [N, 2] (x, y) in pixels of this frame, where the search begins.
        settings: of optical flow.

    Returns:
        Positions [N, 2] (x, y) in pixels of this frame, and forward-backward errors [N] in pixels;
        inf where there was no texture to follow.

    """
    forward, found = _track(previous, current, points, guess, settings)
    if not settings.check_backward:
        return forward, np.where(found, np.float32(0), np.float32(np.inf))
    backward, found_back = _track(current, previous, forward, points, settings)
    error = np.linalg.norm(backward - points, axis=1).astype(np.float32)
    return forward, np.where(found & found_back, error, np.float32(np.inf))


def track_forward_backward_at_levels(
    before: Pyramid,
    image: Pyramid,
    points: Floats,
    guess: Floats,
    levels: Indices,
    settings: OpticalFlow,
) -> tuple[Floats, Floats]:
    """Track points as `track_forward_backward` does, each on its own level of the pyramids.

    Args:
        before: the frame before.
        image: this frame, of the same size.
        points: [N, 2] (x, y) in pixels of the frame before.
        guess: [N, 2] (x, y) in pixels of this frame, where the search begins.
        levels: [N] of the pyramids.
        settings: of optical flow. Its window is in pixels of the level; its levels count from that
            of the frame.

    """
    tracked, error = np.empty_like(guess), np.empty(len(points), np.float32)
    centre = pixel_centres(np.zeros(1, np.intp))
    for level in np.unique(levels):
        number, rows, size = int(level), levels == level, np.float32(2.0**level)
        coarser = replace(settings, levels=max(0, settings.levels - number))
        found, distance = track_forward_backward(
            before.level(number),
            image.level(number),
            (points[rows] - centre) / size + centre,
            (guess[rows] - centre) / size + centre,
            coarser,
        )
        tracked[rows] = (found - centre) * size + centre
        error[rows] = distance * size
    return tracked, error


def is_consistent(error: Floats, size: tuple[int, ...], max_error: float) -> Bools:
    """Return which forward-backward errors [N] are within the limit.

    Args:
        error: [N] in pixels of the frames.
        size: (height, width) of the frames.
        max_error: in pixels at a width of 256; in pixels of the frames if those are narrower.

    """
    return np.asarray(error <= max_error * max(1.0, pixel_unit(size)), np.bool_)


def _track(
    source: Grey, target: Grey, points: Floats, guess: Floats, settings: OpticalFlow
) -> tuple[Floats, Bools]:
    # OpenCV puts (0, 0) at the first pixel's centre.
    centre = pixel_centres(np.zeros(1, np.intp))
    stop = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT
    tracked, status, _ = cv2.calcOpticalFlowPyrLK(
        source,
        target,
        np.ascontiguousarray(points - centre),
        np.ascontiguousarray(guess - centre),
        winSize=(settings.window, settings.window),
        maxLevel=settings.levels,
        criteria=(stop, settings.iterations, settings.epsilon),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        minEigThreshold=settings.min_texture,
    )
    return tracked.reshape(-1, 2) + centre, status.reshape(-1).astype(np.bool_)
