"""Checks of arrays that users pass in: clips, frames, queries, points and masks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vditrack.arrays import Floats, Frame, Ints, Mask, Masks
from vditrack.errors import InputError


def check_time_range(start: float, end: float | None) -> None:
    """Check that a part of a video or recording is a range of time.

    Args:
        start: Seconds after the first frame.
        end: Seconds after the first frame; None for the end of the file.

    Raises:
        InputError: A time is not a finite number, the start is below 0, or the end is not after it.

    """
    # Written so that NaN fails too.
    if 0 <= start < math.inf and (end is None or start < end < math.inf):
        return
    until = "its end" if end is None else f"{end:g} s"
    raise InputError(
        f"{start:g} s to {until} is not a time range. Give a start of at least 0 and an end after "
        "it, in seconds. Without --end, everything to the end is read."
    )


def validate_masks(masks: Masks, frames: int, size: tuple[int, int]) -> dict[int, Mask]:
    """Return masks by the index of their frame, in order.

    Args:
        masks: the mask of frame 0, or masks by frame.
        frames: number of frames of the clip.
        size: (height, width) of the frames.

    Raises:
        InputError: A mask does not fit its frame, or there is no such frame.

    """
    by_frame = masks if isinstance(masks, Mapping) else {0: masks}
    if not by_frame:
        raise InputError("there is no mask. Give one for frame 0, or a mapping of frames to masks.")
    for frame, mask in by_frame.items():
        if isinstance(frame, bool) or not isinstance(frame, (int, np.integer)):
            raise InputError(f"masks are given by frame index, a whole number, not {frame!r}.")
        if not 0 <= frame < frames:
            raise InputError(
                f"there is a mask of frame {frame}; the clip's frames are 0 to {frames - 1}."
            )
        check_mask(mask, size, f"the mask of frame {frame}")
    return {int(frame): by_frame[frame] for frame in sorted(by_frame)}


def check_mask(mask: Mask, size: tuple[int, int], what: str = "the mask") -> None:
    """Check that a mask marks an object on a frame.

    Args:
        mask: uint8 [H, W].
        size: (height, width) of the frame.
        what: the mask's name in error messages.

    Raises:
        InputError: The mask is not a uint8 array of the frame's size, or it is 0 everywhere.

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
        raise InputError(
            f"{what} marks no object: it is 0 everywhere. Give objects indices from 1 to 255."
        )


def check_points(points: Floats, size: tuple[int, int]) -> None:
    """Check that points [N, 2] are finite positions inside a frame of (height, width).

    Raises:
        InputError: A point is outside the frame, or not finite.

    """
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


def validate_ids(ids: ArrayLike, known: Ints) -> Ints:
    """Return ids of points as an array [n].

    Args:
        ids: one id, or some.
        known: [N] ids of the points that there are.

    Raises:
        InputError: There is no point with one of the ids.

    """
    given = np.atleast_1d(np.asarray(ids, np.int64))
    unknown = np.setdiff1d(given, known)
    if len(unknown):
        raise InputError(f"there is no point with id {unknown[0]} in this stream.")
    return given


def check_frame(frame: Frame) -> None:
    """Check that an array is a uint8 RGB frame [H, W, 3].

    Raises:
        InputError: The array has another dtype or shape.

    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = getattr(frame, "dtype", type(frame).__name__)
        raise InputError(f"a frame is {kind}; give a uint8 array [H, W, 3], RGB.")
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise InputError(f"a frame has shape {list(frame.shape)}; give [H, W, 3], RGB.")


def check_clip(frames: NDArray[np.uint8]) -> None:
    """Check that an array is a uint8 RGB clip [T, H, W, 3] of at least one frame.

    Raises:
        InputError: The array has another dtype or shape, or no frame.

    """
    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or not len(frames):
        shape = list(getattr(frames, "shape", ()))
        raise InputError(f"frames have shape {shape}; give a uint8 array [T, H, W, 3], RGB.")
    check_frame(frames[0])


def validate_queries(queries: ArrayLike, frames: int, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return queries as float32 [N, 3] (t, x, y).

    Args:
        queries: [N, 3] (t, x, y).
        frames: number of frames of the clip.
        size: (height, width) of the frames.

    Raises:
        InputError: A query is not on a frame of the clip, or not inside it.

    """
    points = np.asarray(queries, np.float32)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"queries have shape {list(points.shape)}; give [N, 3] (t, x, y).")
    times = points[:, 0]
    on_a_frame = (times >= 0) & (times < frames) & (np.mod(times, 1) == 0)
    if not on_a_frame.all():
        first = int(np.flatnonzero(~on_a_frame)[0])
        raise InputError(
            f"query {first} is at t = {times[first]:g}; the clip's frames are 0 to {frames - 1}."
        )
    height, width = size
    check_points(points[:, 1:], (height, width))
    return points
