"""What the model's thread does for one frame: describe it, and track the points into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from vditrack.arrays import Frame
from vditrack.features.windows import SlidingWindow
from vditrack.points.base import PointTracker
from vditrack.streams.live_points import LivePoints, NewPoints, add_new_points
from vditrack.streams.model_pace import ModelPace


@dataclass(frozen=True)
class ModelStep:
    """A step of the model. Until it ends, no other thread may use its window and its tracker."""

    window: SlidingWindow
    tracker: PointTracker
    frames: Sequence[Frame]
    """Those that the window has not seen, uint8 [H, W, 3] RGB. Points are tracked into the last."""
    points: LivePoints
    """In the last frame, or in the frame before."""
    new: Sequence[NewPoints]
    """Points that were added since the last described frame."""
    intervals: float
    """Usual frame intervals since the last frame that points were tracked into."""
    carried: bool
    """Whether optical flow carried the points into the last frame. If so, they are tracked into it
    only if it has a map."""

    def run(self, pace: ModelPace) -> None:
        """Give the frames to the networks, and track the points into the last one.

        Args:
            pace: gets the time of a step that gives a map, which is the longest of a chunk.

        """
        began = perf_counter()
        frame, tracker, points = self.frames[-1], self.tracker, self.points
        maps = [one for seen in self.frames for one in self.window.push(seen)]
        if self.carried and not maps:
            return
        start = points.places[np.searchsorted(points.ids, tracker.ids)] if self.carried else None
        tracker.advance(maps[-1] if maps else None, frame, self.intervals, start)
        if maps:
            add_new_points(tracker, points, self.new, frame.shape[:2])
            pace.record_model(perf_counter() - began)
