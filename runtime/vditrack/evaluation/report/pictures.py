"""Small pictures of results and annotations for the report."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Image, ImageSequence
from vditrack.io.overlay import SHIFT, choose_point_colours, to_fixed_point
from vditrack.points.tracks import Tracks

_HEIGHT = 200
"""Height of a picture in pixels."""
_WHITE = (255, 255, 255)
_HUES = np.array([[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233]])


def point_picture(
    frames: ImageSequence,
    truth: NDArray[np.float32],
    visible: NDArray[np.bool_],
    tracks: Tracks,
) -> Image:
    """Draw predicted points in three frames, side by side, with lines to their true positions.

    A disc is a point predicted visible, and a ring one predicted hidden. The white end of a line is
    the true position. Points that are truly hidden have no line.

    Args:
        frames: Frames, uint8 [T, H, W, 3] RGB.
        truth: True positions, float32 [N, T, 2] (x, y), in pixels of the frames.
        visible: True visibility, bool [N, T].
        tracks: Predicted tracks of the same points.

    """
    scale = _HEIGHT / frames.shape[1]
    colours = choose_point_colours(tracks.queries, frames.shape[1:3]).tolist()
    panels = []
    for t in _panel_frames(len(frames)):
        panel = _resize(frames[t], scale)
        for n, colour in enumerate(colours):
            place = to_fixed_point(tracks.points[n, t] * scale).tolist()
            if visible[n, t]:
                true_place = to_fixed_point(truth[n, t] * scale).tolist()
                cv2.line(panel, place, true_place, _WHITE, 1, cv2.LINE_AA, SHIFT)
                cv2.circle(panel, true_place, 1 << SHIFT, _WHITE, -1, cv2.LINE_AA, SHIFT)
            thickness = -1 if tracks.visible[n, t] else 1
            cv2.circle(panel, place, 3 << SHIFT, colour, thickness, cv2.LINE_AA, SHIFT)
        panels.append(panel)
    return np.hstack(panels)


def mask_picture(frames: ImageSequence, truth: ImageSequence, found: ImageSequence) -> Image:
    """Draw masks in three frames, side by side: predicted tinted, true outlined in white.

    Args:
        frames: Frames, uint8 [T, H, W, 3] RGB.
        truth: True object indices, uint8 [T, H, W], 0 for the background.
        found: Predicted object indices, uint8 [T, H, W].

    """
    scale = _HEIGHT / frames.shape[1]
    panels = []
    for t in _panel_frames(len(frames)):
        frame, true, propagated = frames[t], truth[t], found[t]
        tint = _HUES[(propagated.astype(int) - 1) % len(_HUES)]
        tinted = np.where(propagated[..., None] > 0, 0.5 * frame + 0.5 * tint, frame)
        panel = _resize(tinted.astype(np.uint8), scale)
        for index in np.unique(true[true > 0]):
            shape = np.asarray(true == index, np.uint8)
            small = cv2.resize(shape, panel.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(panel, outlines, -1, _WHITE, 1)
        panels.append(panel)
    return np.hstack(panels)


def _panel_frames(length: int) -> Sequence[int]:
    """Return the frames at one and two thirds of the clip, and the last one."""
    return [(length - 1) * part // 3 for part in (1, 2, 3)]


def _resize(frame: Image, scale: float) -> Image:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(frame, (round(frame.shape[1] * scale), _HEIGHT), interpolation=method)
    return np.asarray(resized, np.uint8)
