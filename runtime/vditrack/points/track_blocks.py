"""Tracks of successive frames of a clip, as they come."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Doubles, Floats
from vditrack.points.base import PointTracker
from vditrack.points.tracks import Tracks


@dataclass(frozen=True)
class TrackBlock:
    """Tracks of all N points in B successive frames, in one direction.

    Points are tracked forward from their query, and those with a query after frame 0 also backward.
    An entry is final as soon as it is ``known``. Each entry of a clip is known in exactly one
    block, but for those of a query's own frame, which both directions give alike.
    """

    first_frame: int
    """Number of the first of the frames."""
    times: Doubles
    """[B] times of the frames, in seconds."""
    backward: bool
    """Whether the block was tracked backward, from later queries to the start of the clip."""
    known: Bools
    """[N, B] which entries this block knows. The others are 0, invisible and inf."""
    points: Floats
    """[N, B, 2] (x, y) in pixels; a guess where the point is invisible."""
    visible: Bools
    """[N, B]"""
    confidence: Floats
    """[N, B] in [0, 1]."""
    forward_backward_error: Floats
    """[N, B] in model pixels; inf where unknown."""

    @property
    def frames(self) -> slice:
        """The frames of the block in the clip."""
        return slice(self.first_frame, self.first_frame + len(self.times))

    def write(self, tracks: Tracks) -> None:
        """Write what the block knows into the tracks of the clip, in place."""
        for name in ("points", "visible", "confidence", "forward_backward_error"):
            getattr(tracks, name)[:, self.frames][self.known] = getattr(self, name)[self.known]


def empty_block(queries: Floats, first_frame: int, times: Doubles, *, backward: bool) -> TrackBlock:
    """Return a block without tracks.

    Args:
        queries: float32 [N, 3] (t, x, y).
        first_frame: number of its first frame.
        times: float64 [B] of its frames, in seconds.
        backward: whether points are tracked backward.

    """
    frames = first_frame + np.arange(len(times))
    starts = queries[:, :1]
    shape = (len(queries), len(times))
    return TrackBlock(
        first_frame=first_frame,
        times=times,
        backward=backward,
        known=np.asarray(frames <= starts if backward else frames >= starts, np.bool_),
        points=np.zeros((*shape, 2), np.float32),
        visible=np.zeros(shape, np.bool_),
        confidence=np.zeros(shape, np.float32),
        forward_backward_error=np.full(shape, np.inf, np.float32),
    )


def write_frame(block: TrackBlock, frame: int, tracker: PointTracker) -> None:
    """Write the points of a tracker in a frame into a block."""
    place, rows = frame - block.first_frame, tracker.ids
    block.points[rows, place] = tracker.points
    block.visible[rows, place] = tracker.visible
    block.confidence[rows, place] = tracker.confidence
    block.forward_backward_error[rows, place] = tracker.forward_backward_error


def collect_tracks(blocks: Iterable[TrackBlock], queries: Floats, frames: int) -> Tracks:
    """Return the tracks of a clip of T frames from all of its blocks."""
    shape = (len(queries), frames)
    tracks = Tracks(
        queries=queries,
        points=np.zeros((*shape, 2), np.float32),
        visible=np.zeros(shape, np.bool_),
        confidence=np.zeros(shape, np.float32),
        forward_backward_error=np.full(shape, np.inf, np.float32),
    )
    for block in blocks:
        block.write(tracks)
    return tracks
