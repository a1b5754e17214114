"""Sub-pixel positions from the original pixels: pyramidal Lucas-Kanade, held to the match."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.features import Frame
from vditrack.grid import pixel_centres

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Grey = NDArray[np.uint8]

_WINDOW = (15, 15)
_LEVELS = 4
_TEXTURE = 1e-4
"""OpenCV's own threshold: on flatter surfaces a match is worth more than flow."""
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


def refine(
    previous: Grey,
    current: Grey,
    start: Floats,
    matched: Floats,
    radius: float,
    guess: Floats | None = None,
) -> Floats:
    """Follow points from one frame to the next by optical flow, wherever the match allows it.

    The flow's answer is taken when it leads back to where it came from and ends within ``radius``
    of the match; failing that, flow that starts from the match is given the same chance; failing
    that too, the match stays. So a point is never further than ``radius`` from its match.

    Args:
        previous: the frame before, uint8 [H, W].
        current: this frame, of the same size.
        start: [N, 2] (x, y) in pixels of the previous frame.
        matched: [N, 2] (x, y) in pixels of this frame.
        radius: in pixels of these frames.
        guess: [N, 2] (x, y) in pixels of this frame, where the flow begins to look; ``start`` by
            default.

    Returns:
        [N, 2] (x, y) in pixels of this frame.

    """
    refined = matched.copy()
    open_points = np.arange(len(start))
    for beginning in (start if guess is None else guess, matched):
        if not len(open_points):
            break
        chosen, aim, first = (part[open_points] for part in (start, matched, beginning))
        flowed, returns = flow_there_and_back(previous, current, chosen, first)
        followed = returns & (np.linalg.norm(flowed - aim, axis=1) <= radius)
        refined[open_points[followed]] = flowed[followed]
        open_points = open_points[~followed]
    return refined


def flow_there_and_back(
    previous: Grey, current: Grey, start: Floats, guess: Floats, least_texture: float = _TEXTURE
) -> tuple[Floats, Bools]:
    """Follow points by optical flow, and back again.

    Args:
        previous: the frame before, uint8 [H, W].
        current: this frame, of the same size.
        start: [N, 2] (x, y) in pixels of the previous frame; N is at least 1.
        guess: [N, 2] (x, y) in pixels of this frame, where the flow begins to look.
        least_texture: of a surface that is followed: OpenCV's least eigenvalue of its gradients.

    Returns:
        [N, 2] (x, y) in pixels of this frame, and [N] whether the way back leads to the start.

    """
    there, found = _flow(previous, current, start, guess, least_texture)
    back, found_back = _flow(current, previous, there, start, least_texture)
    # One pixel there and back is what the method's users allow in a video of about 256 pixels.
    tolerance = max(1.0, max(previous.shape) / 256)
    returns = np.linalg.norm(back - start, axis=1) <= tolerance
    return there, found & found_back & returns


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
