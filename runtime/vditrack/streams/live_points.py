"""The points of a live stream in the newest frame, and those that are new to the tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Grey, Ints
from vditrack.bundle.configuration import CameraMotion, LiveTracking
from vditrack.points.array_tables import concatenate_rows, select_rows
from vditrack.points.base import PointTracker
from vditrack.points.bridging import carry_points, size_ratio
from vditrack.points.origin import Origin
from vditrack.stage_timing import stage


@dataclass
class LivePoints:
    """The points in the newest frame, by ascending ids."""

    ids: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    places: Floats = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    followed: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    """Whether optical flow has not lost the point since the model placed it."""
    confidence: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """The model's confidence; 1 until the model has described the point."""
    forward_backward_error: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    age: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    placed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Stamps of the frames in which the model last placed the points."""

    @property
    def visible(self) -> Bools:
        """Which points [N] are visible."""
        return self.followed & (self.confidence >= 0.5)

    def add_points(self, ids: Ints, places: Floats, held: Bools, stamp: float) -> LivePoints:
        """Return the points with new ones added; those that flow has not held are invisible."""
        count = len(ids)
        new = LivePoints(
            ids=ids,
            places=places.copy(),
            followed=held.copy(),
            confidence=np.ones(count, np.float32),
            forward_backward_error=np.zeros(count, np.float32),
            age=np.zeros(count, np.int64),
            placed=np.full(count, stamp),
        )
        return concatenate_rows(self, new)

    def place(self, tracker: PointTracker, stamp: float | None) -> None:
        """Take over where a tracker has the points that it knows, in the newest frame.

        Args:
            tracker: has tracked them into the newest frame.
            stamp: of that frame in seconds; None if the model did not describe it.

        """
        rows = np.searchsorted(self.ids, tracker.ids)
        self.places[rows] = tracker.points
        self.confidence[rows] = tracker.confidence
        self.forward_backward_error[rows] = tracker.forward_backward_error
        self.followed[rows] = True
        if stamp is not None:
            self.placed[rows] = stamp

    def carry(
        self,
        newest: Grey,
        image: Grey,
        textureless: Ints,
        settings: LiveTracking,
        camera: CameraMotion | None,
    ) -> None:
        """Carry the visible points from the newest frame to the next by optical flow.

        Args:
            newest: grey levels of the newest frame.
            image: grey levels of the next frame, of any size.
            textureless: ids of the points that have too little texture to be followed by flow.
            settings: of bridging.
            camera: of the camera's motion; None to use none.

        """
        if not len(self.ids):
            return
        self.places *= size_ratio(newest, image)
        seen = np.flatnonzero(self.visible)
        if len(seen):
            with stage("flow"):
                without_texture = np.isin(self.ids[seen], textureless)
                places, held = carry_points(
                    newest, image, self.places[seen], without_texture, settings, camera
                )
            self.places[seen[held]] = places[held]
            self.followed[seen[~held]] = False

    def select_lost(self, kept: Bools) -> LivePoints:
        """Return the points where the mask [N] is true, as points whose places are not known."""
        points = select_rows(self, kept)
        points.followed[:] = False
        points.confidence[:] = 0
        points.forward_backward_error[:] = np.inf
        points.placed[:] = np.nan
        return points


@dataclass(frozen=True)
class NewPoints:
    """N points that were marked on one image since the model last described a frame."""

    ids: Ints
    origin: Origin

    def add_to(self, tracker: PointTracker, ids: Ints, places: Floats) -> None:
        """Add those of them to a tracker that are given; they look as in the image marked.

        Args:
            tracker: of the stream.
            ids: of points [M], ascending.
            places: [M, 2] (x, y) in pixels of the tracker's last frame.

        """
        chosen = np.isin(self.ids, ids)
        if chosen.any():
            rows = np.searchsorted(ids, self.ids[chosen])
            origin = Origin(self.origin.image, self.origin.points[chosen])
            tracker.add(self.ids[chosen], places[rows], origin)


def add_new_points(
    tracker: PointTracker, points: LivePoints, new: Sequence[NewPoints], size: tuple[int, int]
) -> None:
    """Add those new points to a tracker that it lacks, and that are visible inside its last frame.

    Args:
        tracker: of the stream.
        points: in the tracker's last frame.
        new: by the image that they were marked on.
        size: (height, width) of that frame.

    """
    seen = points.visible & ~np.isin(points.ids, tracker.ids)
    seen &= ((points.places >= 0) & (points.places < size[::-1])).all(axis=1)
    for group in new:
        group.add_to(tracker, points.ids[seen], points.places[seen])
