"""Checks of what users pass in: clips, frames, queries, points and masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vditrack.arrays import Floats, Frame, Mask, Masks
from vditrack.errors import InputError


def validate_masks(masks: Masks, frames: NDArray[np.uint8]) -> dict[int, Mask]:
    """Masks by the frame of the clip [T, H, W, 3] that each is of, in order.

    Raises:
        InputError: a mask is none for such a frame, or there is no such frame.

    """
    asked = masks if isinstance(masks, Mapping) else {0: masks}
    if not asked:
        raise InputError("there is no mask. Give one for frame 0, or a mapping of frames to masks.")
    for frame, mask in asked.items():
        if isinstance(frame, bool) or not isinstance(frame, (int, np.integer)):
            raise InputError(f"masks are asked for by frame, a whole number; {frame!r} is none.")
        if not 0 <= frame < len(frames):
            raise InputError(
                f"there is a mask of frame {frame}; the clip's frames are 0 to {len(frames) - 1}."
            )
        check_mask(mask, frames.shape[1:3], f"the mask of frame {frame}")
    return {int(frame): asked[frame] for frame in sorted(asked)}


def check_mask(mask: Mask, size: tuple[int, int], what: str = "the mask") -> None:
    """Refuse what does not mark an object on a frame of (height, width).

    Raises:
        InputError: it is not a uint8 array [height, width], or 0 everywhere; it begins with
            ``what``.

    """
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise InputError(
            f"{what} is {kind} {list(getattr(mask, 'shape', ()))}; give a uint8 array [H, W] of "
            "object indices: 0 is the background, and there may be 255 objects."
        )
    height, width = size
    if mask.shape != (height, width):
        raise InputError(
            f"{what} is {mask.shape[1]} x {mask.shape[0]}, the frame {width} x {height}. Give a "
            "mask of the frame's size."
        )
    if not mask.any():
        raise InputError(f"{what} marks no object: it is 0 everywhere. Give objects indices above.")


def check_points(points: Floats, size: tuple[int, int]) -> None:
    """Refuse points [N, 2] that are not finite positions inside a frame of (height, width)."""
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"points have shape {list(points.shape)}; give [N, 2] (x, y).")
    height, width = size
    # Written so that NaN fails too.
    inside = (points >= 0).all(axis=1) & (points < np.array([width, height])).all(axis=1)
    if not inside.all():
        first = int(np.flatnonzero(~inside)[0])
        x, y = points[first]
        raise InputError(
            f"point {first} at ({x:g}, {y:g}) is not inside the frame of {width} x {height} "
            f"pixels: x must be in [0, {width}), y in [0, {height})."
        )


def check_frame(frame: Frame) -> None:
    """Refuse what is not a uint8 RGB frame [H, W, 3]."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = getattr(frame, "dtype", type(frame).__name__)
        raise InputError(f"a frame is {kind}; give a uint8 array [H, W, 3], RGB.")
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise InputError(f"a frame has shape {list(frame.shape)}; give [H, W, 3], RGB.")


def check_clip(frames: NDArray[np.uint8]) -> None:
    """Refuse what is not a uint8 RGB clip [T, H, W, 3] of at least one frame."""
    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or not len(frames):
        shape = list(getattr(frames, "shape", ()))
        raise InputError(f"frames have shape {shape}; give a uint8 array [T, H, W, 3], RGB.")
    check_frame(frames[0])


def validate_queries(queries: ArrayLike, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return queries as float32 [N, 3]; refuse one that is not on a frame and inside it."""
    asked = np.asarray(queries, np.float32)
    if asked.ndim != 2 or asked.shape[1] != 3:
        raise InputError(f"queries have shape {list(asked.shape)}; give [N, 3] (t, x, y).")
    times = asked[:, 0]
    on_a_frame = (times >= 0) & (times < len(frames)) & (np.mod(times, 1) == 0)
    if not on_a_frame.all():
        first = int(np.flatnonzero(~on_a_frame)[0])
        raise InputError(
            f"query {first} is at t = {times[first]:g}; the clip's frames are 0 to "
            f"{len(frames) - 1}."
        )
    check_points(asked[:, 1:], frames.shape[1:3])
    return asked
