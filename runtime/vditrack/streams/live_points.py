"""The points of a live stream in the newest frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Ints
from vditrack.points.array_tables import concatenate_rows, select_rows


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

    def add_points(self, ids: Ints, places: Floats, stamp: float) -> LivePoints:
        """Return the points with new ones added, which are visible."""
        count = len(ids)
        new = LivePoints(
            ids=ids,
            places=places,
            followed=np.ones(count, np.bool_),
            confidence=np.ones(count, np.float32),
            forward_backward_error=np.zeros(count, np.float32),
            age=np.zeros(count, np.int64),
            placed=np.full(count, stamp),
        )
        return concatenate_rows(self, new)

    def select_lost(self, kept: Bools) -> LivePoints:
        """Return the points where the mask [N] is true, as points whose places are not known."""
        points = select_rows(self, kept)
        points.followed[:] = False
        points.confidence[:] = 0
        points.forward_backward_error[:] = np.inf
        points.placed[:] = np.nan
        return points
