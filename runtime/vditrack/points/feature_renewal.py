"""Tracks corners through a clip, and finds new ones as they are lost."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Doubles
from vditrack.points.base import PointTracker
from vditrack.points.clip_tracking import Progress, Step
from vditrack.points.corners import detect_corners
from vditrack.points.ragged_tracks import LivingPoints

_LIVING = 2
"""Points that are tracked at a time, at most, in units of `FeatureRenewal.count`; those that are
lost are searched for meanwhile."""


@dataclass(frozen=True)
class FeatureRenewal:
    """How many corners are tracked at a time, and when they are replaced."""

    count: int
    """Number of visible points below which new ones are looked for."""
    quality: float
    """Minimum quality of a corner, as a share of the best corner's."""
    lost_after: float
    """Seconds for which a point may stay invisible before it ends."""
    interval: float
    """Minimum number of seconds between two searches for new points."""


class RenewedFeatures(Iterator[LivingPoints]):
    """The corners of each frame of a clip, with memory that does not grow with its length.

    Each point is tracked forward from the frame in which it was found, until it has been invisible
    for long. New ones are at least half as far from the visible ones as on a grid.
    """

    def __init__(
        self,
        steps: Iterator[Step],
        tracker: PointTracker,
        clip: tuple[Doubles, Doubles],
        renewal: FeatureRenewal,
        progress: Progress | None = None,
    ) -> None:
        """Start before the first frame.

        Args:
            steps: what the tracker needs of each frame.
            tracker: without points.
            clip: times [T] of the frames in seconds, and usual frame intervals [T] between each
                frame and the one before.
            renewal: when points end and are replaced.
            progress: called with (frames done, frames in all).

        """
        self._steps, self._tracker, self._progress = steps, tracker, progress
        (self._times, self._intervals), self._renewal = clip, renewal
        self._seen: Doubles = np.zeros(0)
        """Times [N] at which the tracker's points were last visible."""
        self._next_id, self._searched = 0, -np.inf

    def __next__(self) -> LivingPoints:
        """Return the points of the next frame."""
        step, tracker = next(self._steps), self._tracker
        time = float(self._times[step.frame])
        tracker.advance(step.features, step.image, float(self._intervals[step.frame]))
        self._seen = np.where(tracker.visible, time, self._seen)
        self._keep(time - self._seen <= self._renewal.lost_after)
        if time - self._searched >= self._renewal.interval:
            self._add_missing(step, time)
        if self._progress is not None:
            self._progress(step.frame + 1, len(self._times))
        return LivingPoints(
            frame=step.frame,
            ids=tracker.ids.astype(np.int32),
            points=tracker.points,
            visible=tracker.visible,
            confidence=tracker.confidence.copy(),
            forward_backward_error=tracker.forward_backward_error.copy(),
        )

    def _add_missing(self, step: Step, time: float) -> None:
        renewal, tracker = self._renewal, self._tracker
        visible = tracker.visible
        missing = renewal.count - int(visible.sum())
        if missing <= 0:
            return
        self._searched = time
        alive = tracker.points[visible]
        corners = detect_corners(step.image, missing, renewal.count, alive, renewal.quality)
        excess = len(tracker.ids) + len(corners) - _LIVING * renewal.count
        if excess > 0:
            # Visible points and corners are no more than the count: enough others are invisible.
            longest = np.argsort(np.where(visible, np.inf, self._seen), kind="stable")[:excess]
            self._keep(~np.isin(np.arange(len(visible)), longest))
        tracker.add(self._next_id + np.arange(len(corners)), corners)
        self._seen = np.concatenate([self._seen, np.full(len(corners), time)])
        self._next_id += len(corners)

    def _keep(self, kept: Bools) -> None:
        if not kept.all():
            self._tracker.keep(kept)
            self._seen = self._seen[kept]
