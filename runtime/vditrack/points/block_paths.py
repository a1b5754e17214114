"""Chooses the paths of doubtful points through a block of frames that was tracked.

The tracker decides from frame to frame. When all frames of a block are known, a point may turn out
to have been elsewhere: where its descriptor was surer, or where later frames lead back to. Points
of which the tracker is sure, and which resemble no other place more, stay as they are.
"""

from collections.abc import Iterator

import numpy as np

from vditrack.arrays import Grey, Indices
from vditrack.bundle.configuration import FlowTracking, Matching
from vditrack.bundle.path_choice import PathChoice
from vditrack.bundle.redetection import Recovery
from vditrack.coordinates import Grid, pixel_unit
from vditrack.features.feature_map import FeatureMap
from vditrack.points.array_tables import select_rows
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.path_choice import PathEvidence, choose
from vditrack.points.path_evidence import BlockFrame, PathReader, TrackedPoints
from vditrack.points.track_blocks import TrackBlock

_POINTS = 128
"""Points that are handled at a time; bounds the memory of their evidence."""
_STAYS = 3.0
"""Pixels at a width of 256 up to which a point is where the tracker put it."""


class PathChooser:
    """Chooses paths through one block, whose frames it keeps."""

    def __init__(self, block: TrackBlock, tracker: FlowTracker, reader: PathReader) -> None:
        """Start before the first frame.

        Args:
            block: of the tracks, which are written as its frames are tracked.
            tracker: tracks the points; it drops none.
            reader: of the evidence.

        """
        self._block, self._tracker, self._reader = block, tracker, reader
        self._frames: list[BlockFrame] = []
        self._seen = 0
        self._tracked_before = len(tracker.ids)

    def observe(self, frame: int, image: Grey, features: FeatureMap | None) -> None:
        """Keep the frame that was just tracked.

        Args:
            frame: number of the frame.
            image: grey levels of the frame.
            features: of the frame, if it has a feature map.

        """
        self._seen += 1
        if features is not None:
            place = frame - self._block.first_frame
            self._frames.append(BlockFrame(place, image, features))

    def read(self, *, doubtful: bool = True) -> Iterator[tuple[Indices, PathEvidence]]:
        """Yield rows of the block, and the evidence for their paths.

        Args:
            doubtful: whether to leave out points that are not doubtful.

        """
        appearance = self._tracker.appearance
        # Without descriptors in some frames, places there cannot be compared with those elsewhere.
        if appearance is None or len(self._frames) < max(2, self._seen):
            return
        ids, order = self._tracker.ids, self._order()
        for begin in range(0, len(ids), _POINTS):
            part = np.arange(begin, min(begin + _POINTS, len(ids)))
            rows = ids[part]
            known = self._block.known[rows][:, order]
            part, rows = part[known.any(axis=1)], rows[known.any(axis=1)]
            tracked = self._tracked(part)
            if doubtful and len(part):
                doubt = self._reader.find_doubtful(self._frames, tracked)
                doubt &= self._block.known[rows][:, order]
                part = part[doubt.any(axis=1)]
            if len(part):
                yield ids[part], self._read(part)

    def choose(self, choice: PathChoice) -> None:
        """Write the chosen paths into the block, whose last frame was just tracked, in place."""
        if not self._frames:
            return
        block, unit = self._block, pixel_unit(self._frames[0].image.shape)
        order = self._order()
        for rows, evidence in self.read():
            chosen, at = choose(evidence, choice), np.ix_(rows, order)
            begun = np.arange(len(order)) >= (evidence.first + evidence.queried)[:, None]
            points = chosen.points * np.float32(unit)
            moved = np.linalg.norm(points - block.points[at], axis=2) > _STAYS * unit
            moved &= begun
            block.points[at] = np.where(moved[:, :, None], points, block.points[at])
            block.confidence[at] = np.where(moved, chosen.confidence, block.confidence[at])
            block.visible[at] = block.confidence[at] >= 0.5
            error = np.where(moved, np.float32(np.inf), block.forward_backward_error[at])
            block.forward_backward_error[at] = error

    def _order(self) -> Indices:
        """Return the numbers [T] of the frames in the block, in the order in which they came."""
        return np.array([frame.place for frame in self._frames], np.intp)

    def _tracked(self, part: Indices) -> TrackedPoints:
        """Return the points of the given rows of the tracker, in the order of the frames."""
        appearance = self._tracker.appearance
        if appearance is None:
            raise ValueError("the tracker has no points")
        at = np.ix_(self._tracker.ids[part], self._order())
        block = self._block
        return TrackedPoints(select_rows(appearance, part), block.points[at], block.confidence[at])

    def _read(self, part: Indices) -> PathEvidence:
        rows, order = self._tracker.ids[part], self._order()
        first = self._block.known[rows][:, order].argmax(axis=1)
        queried = part >= self._tracked_before
        return self._reader.read(self._frames, self._tracked(part), first, queried)


def make_reader(grid: Grid, settings: Matching, flow_tracking: FlowTracking) -> PathReader | None:
    """Return a reader of evidence; None if the bundle does not search for lost points."""
    recovery: Recovery | None = flow_tracking.recovery
    if recovery is None or not flow_tracking.remember_query:
        return None
    return PathReader(grid, settings, flow_tracking, recovery)
