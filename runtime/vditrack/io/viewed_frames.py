"""What a viewer shows of each frame: the picture, its points and its objects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Doubles, Floats, Frame, Ints, Mask
from vditrack.points.tracks import Tracks


@dataclass(frozen=True)
class ViewedPoints:
    """N points in a frame."""

    ids: NDArray[np.integer[Any]]
    """Identifiers [N], constant for the life of a point."""
    points: Floats
    """float32 [N, 2] (x, y) in pixels; (0, 0) is the upper-left corner of the picture."""
    visible: Bools
    """bool [N]"""
    confidence: Floats
    """float32 [N] in [0, 1]."""


@dataclass(frozen=True)
class ViewedFrame:
    """One frame of a result. What is None is not known of it."""

    number: int
    """Counted from 0."""
    time: float
    """Seconds since the first frame of the video."""
    picture: Frame | None = None
    """uint8 [H, W, 3] RGB."""
    points: ViewedPoints | None = None
    mask: Mask | None = None
    """uint8 [H, W]: index of the object at each pixel, 0 for the background."""
    stamp: int | None = None
    """Stamp of the image in a bag, in nanoseconds."""


def view_clip(
    times: Doubles,
    frames: Iterable[Frame] | None = None,
    tracks: Tracks | None = None,
    masks: Iterable[Mask] | None = None,
    stamps: Ints | None = None,
) -> Iterator[ViewedFrame]:
    """Yield the frames of a clip with its results; the id of a point is its index.

    Args:
        times: float64 [T] of the frames, in seconds.
        frames: T frames, uint8 [H, W, 3] RGB; None to show the results alone.
        tracks: Tracks in the same T frames.
        masks: Masks [H, W] of objects in the same T frames.
        stamps: int64 [T] of the images of a bag, in nanoseconds.

    """
    coming = None if frames is None else iter(frames)
    coming_masks = None if masks is None else iter(masks)
    for t, time in enumerate(times.tolist()):
        yield ViewedFrame(
            number=t,
            time=time,
            picture=None if coming is None else next(coming),
            points=None if tracks is None else _view_points(tracks, t),
            mask=None if coming_masks is None else next(coming_masks),
            stamp=None if stamps is None else int(stamps[t]),
        )


def _view_points(tracks: Tracks, t: int) -> ViewedPoints:
    # A point whose position is not known does not live in the frame.
    ids = np.flatnonzero(np.isfinite(tracks.points[:, t]).all(axis=1))
    return ViewedPoints(
        ids, tracks.points[ids, t], tracks.visible[ids, t], tracks.confidence[ids, t]
    )
