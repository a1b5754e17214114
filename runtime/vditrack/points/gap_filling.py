"""Filling of gaps in the tracks of a clip, backward from the return of a point.

A point that was occluded is often found again frames after it has reappeared. A clip can also be
read backward, so after each block of frames a second tracker tracks the points that returned back
to where they were lost. Where it meets the track forward, both are joined: what it tracked on the
way is written into the block, also where the track forward had drifted off before it was lost. If
the two tracks pass each other, one of them is on a look-alike, and nothing is written.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Floats, Grey, Indices
from vditrack.bundle.redetection import GapFilling
from vditrack.coordinates import pixel_unit
from vditrack.features.feature_map import FeatureMap
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.track_blocks import TrackBlock


@dataclass(frozen=True)
class _Seen:
    """A frame of a block, and the points that returned in it."""

    place: int
    """Number of the frame in the block."""
    image: Grey
    features: FeatureMap | None
    intervals: float
    """Usual frame intervals since the frame that was tracked before."""
    returned: Indices
    """[M] rows of the points that returned."""
    points: Floats
    """[M, 2] (x, y) of those points in pixels."""


@dataclass(frozen=True)
class _Entry:
    """Where a point is in one frame, tracked backward."""

    place: int
    """Number of the frame in the block."""
    point: Floats
    """[2] (x, y) in pixels."""
    confidence: float
    forward_backward_error: float


class GapFiller:
    """Fills the gaps of one block, whose frames it keeps."""

    def __init__(self, block: TrackBlock, tracker: FlowTracker, settings: GapFilling) -> None:
        """Start before the first frame.

        Args:
            block: of the tracks, which are written as its frames are tracked.
            tracker: tracks the points; it drops none.
            settings: when a gap is filled.

        """
        self._block, self._tracker, self._settings = block, tracker, settings
        self._frames: list[_Seen] = []
        self._visible: Bools = np.zeros(0, np.bool_)
        self._traces: defaultdict[int, list[_Entry]] = defaultdict(list)

    def observe(
        self, frame: int, image: Grey, features: FeatureMap | None, intervals: float
    ) -> None:
        """Keep the frame that was just tracked, and note which points returned in it.

        Args:
            frame: number of the frame.
            image: grey levels of the frame.
            features: of the frame, if it has a feature map.
            intervals: usual frame intervals since the frame that was tracked before.

        """
        tracker = self._tracker
        visible, place = tracker.visible, frame - self._block.first_frame
        before = np.ones(len(visible), np.bool_)
        if self._frames:
            before[: len(self._visible)] = self._visible
        rows = np.flatnonzero(visible & ~before)
        self._visible = visible
        points = tracker.points[rows]
        self._frames.append(_Seen(place, image, features, intervals, rows, points))

    def fill(self) -> None:
        """Fill the gaps of the block, whose last frame was just tracked, in place."""
        if not any(len(seen.returned) for seen in self._frames):
            return
        tracker, intervals = self._tracker, 1.0
        backward = tracker.new_tracker()
        for seen in reversed(self._frames):
            backward.advance(seen.features, seen.image, intervals)
            intervals = seen.intervals
            backward.keep(self._compare(seen, backward))
            new = seen.returned[~np.isin(tracker.ids[seen.returned], backward.ids)]
            if len(new):
                at = seen.points[np.isin(seen.returned, new)]
                backward.add_copies(tracker, new, at)
        for number, trace in self._traces.items():
            self._write(number, trace, met=False)

    def _compare(self, seen: _Seen, backward: FlowTracker) -> Bools:
        """Compare points that are tracked backward with the block; return which go on, [M]."""
        block, ids = self._block, backward.ids
        points, visible = backward.points, backward.visible
        forward = block.visible[ids, seen.place] & block.known[ids, seen.place]
        limit = self._settings.max_distance * pixel_unit(seen.image.shape)
        apart = np.linalg.norm(points - block.points[ids, seen.place], axis=1)
        met = visible & forward & (apart < limit)
        kept = visible & ~met & block.known[ids, seen.place]
        for row, number in enumerate(ids.tolist()):
            if kept[row]:
                confidence = float(backward.confidence[row])
                error = float(backward.forward_backward_error[row])
                entry = _Entry(seen.place, points[row], confidence, error)
                self._traces[number].append(entry)
            else:
                self._write(number, self._traces.pop(number, []), met=bool(met[row]))
        return np.asarray(kept, np.bool_)

    def _write(self, number: int, trace: list[_Entry], *, met: bool) -> None:
        """Write what was tracked backward from a return into the block.

        Args:
            number: of the point.
            trace: its places, from the return backward.
            met: whether the track forward was met at the end.

        """
        block = self._block
        if not met and any(block.visible[number, entry.place] for entry in trace):
            return
        for entry in trace:
            if entry.confidence < self._settings.min_confidence:
                return
            at = number, entry.place
            block.points[at], block.visible[at] = entry.point, True
            block.confidence[at] = entry.confidence
            block.forward_backward_error[at] = entry.forward_backward_error
