"""Decides by its stamp whether an image is processed. Needs no ROS."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND

_SIMULATION_START = NANOSECONDS_PER_SECOND
"""Nanoseconds of the node's clock until which a stamp of zero is a time."""
_MIN_SHARE_OF_PAUSE = 0.5
"""Share of a gap between stamps that the node's clock must see to call it a pause of the camera."""
_HISTORY = 10
"""Accepted images that the next one is compared with. The median of their intervals is the usual
interval."""
_MIN_INTERVALS = 3
"""Intervals from which on the usual interval is known."""
_MAX_INTERVALS = 3
"""Usual intervals by which a stamp may be ahead at any time, since images may be lost."""

_EARLY_SHARE = 4
"""Part of the period of `max_rate` by which an image may be early: the fourth part."""


class Verdict(Enum):
    """What happens to an image."""

    ACCEPTED = "accepted"
    """It is processed."""
    REPEATED = "repeated"
    """It is dropped: its stamp equals that of its predecessor."""
    LATE = "late"
    """It is dropped: its stamp is a little before that of its predecessor."""
    UNSTAMPED = "unstamped"
    """It is dropped: its stamp is zero, and those of others are not."""
    TOO_OLD = "old"
    """It is dropped: it is older than allowed."""
    LEFT_OUT = "left out"
    """It is not processed: more images come than are wanted."""
    STRAY = "stray"
    """It is dropped: its stamp jumps. If that of the next image agrees, the clock was set."""
    CLOCK_SET = "clock set"
    """It is processed after a restart: its stamp confirms the jump of the one before, and the jump
    is longer than a gap may be, or goes back."""
    AFTER_GAP = "after a gap"
    """It is processed after a restart: the camera paused, by the stamps and by the node's clock."""

    @property
    def is_drop(self) -> bool:
        """Whether the image is dropped; the value is then one of `counters.DROP_REASONS`."""
        processed = Verdict.ACCEPTED, Verdict.CLOCK_SET, Verdict.AFTER_GAP
        return self not in (*processed, Verdict.LEFT_OUT)


class ImageTimes(NamedTuple):
    """Times of an image, in nanoseconds."""

    stamp: int
    """The header's."""
    arrival: int
    """By a clock that is never set."""
    now: int
    """By the node's clock, which may be simulated."""


@dataclass(frozen=True)
class GateLimits:
    """Limits of the gate, in seconds."""

    max_age: float
    """Age by the node's clock; 0 allows any age."""
    max_gap: float
    """Time between the stamps of two images."""
    max_lateness: float
    """Time by which a stamp may be before that of a predecessor, or ahead of the node's clock."""
    max_rate: float = 0.0
    """Images that are processed per second, at most; 0 for all."""


class _Mark(NamedTuple):
    """An image that others are compared with."""

    stamp: int
    """The header's, or the time of arrival in its place."""
    by_arrival: bool
    """Whether it is the time of arrival."""
    times: ImageTimes

    def elapsed(self, times: ImageTimes) -> int:
        """Return the nanoseconds from this image to another by the node, whose clocks may differ.

        In a simulation that runs faster than time, only the node's clock shows a pause.
        """
        return max(times.arrival - self.times.arrival, times.now - self.times.now)


class ImageGate:
    """Compares the stamp of each image with the clock and with the last accepted image.

    An image whose stamp jumps, forward or back, is held back: one stray stamp changes nothing.
    Only if the stamp of the next image agrees with the jump, the clock was set.
    """

    def __init__(self) -> None:
        """Start without a predecessor."""
        self._last_stamped: int | None = None
        """When the last image with a stamp arrived, except for stray ones."""
        self._due = 0
        """Stamp from which on the next image is processed, if their rate is limited."""
        self.reset()

    def reset(self) -> None:
        """Forget the last accepted image."""
        self._last: _Mark | None = None
        self._stray: _Mark | None = None
        """The image that was dropped last because its stamp jumps; None after an accepted one."""
        self._recent: deque[_Mark] = deque(maxlen=_HISTORY)
        """The last accepted images since the clock was set or the camera paused."""

    def measure_jump(self) -> float:
        """Return the seconds from the last accepted image to the stray one after it; 0 for none."""
        if self._last is None or self._stray is None:
            return 0.0
        return (self._stray.stamp - self._last.stamp) / NANOSECONDS_PER_SECOND

    def check(self, times: ImageTimes, limits: GateLimits) -> tuple[Verdict, int | None]:
        """Return the verdict on the next image, and its stamp; remember it if it is accepted.

        The time of arrival replaces a stamp of zero, if the camera leaves all stamps empty. While
        other images have stamps, an image without is dropped.

        Args:
            times: of the image.
            limits: of the gate.

        Returns:
            The verdict and the header's stamp in nanoseconds; None in its place if the time of
            arrival replaces it.

        """
        by_arrival = times.stamp == 0 and times.now > _SIMULATION_START
        if not by_arrival:
            if 0 < limits.max_age * NANOSECONDS_PER_SECOND < times.now - times.stamp:
                self._last_stamped = times.arrival
                return Verdict.TOO_OLD, times.stamp
        elif self._last_stamped is not None and (
            times.arrival - self._last_stamped <= limits.max_gap * NANOSECONDS_PER_SECOND
        ):
            return Verdict.UNSTAMPED, None
        mark = _Mark(times.arrival if by_arrival else times.stamp, by_arrival, times)
        verdict = self._compare(mark, limits)
        if verdict is Verdict.STRAY:
            self._stray = mark
        elif not by_arrival:
            self._last_stamped = times.arrival
        if not verdict.is_drop:
            is_first = self._last is None or verdict is not Verdict.ACCEPTED
            self._accept(mark, verdict)
            if not self._is_due(mark.stamp, limits, is_first=is_first):
                verdict = Verdict.LEFT_OUT
        return verdict, None if by_arrival else mark.stamp

    def _accept(self, mark: _Mark, verdict: Verdict) -> None:
        if verdict is not Verdict.ACCEPTED:
            self._recent.clear()
        self._recent.append(mark)
        self._last, self._stray = mark, None

    def _is_due(self, stamp: int, limits: GateLimits, *, is_first: bool) -> bool:
        """Return whether an image is processed under the limit of the rate.

        Images are due at regular times, so that 20 of 30 images per second are every first and
        second of three. Stamps may be a little early, because no camera is exactly regular.

        Args:
            stamp: of the image, in nanoseconds.
            limits: of the gate.
            is_first: whether there is no image before it that counts.

        """
        if limits.max_rate <= 0:
            return True
        period = round(NANOSECONDS_PER_SECOND / limits.max_rate)
        if is_first:
            self._due = stamp
        if stamp < self._due - period // _EARLY_SHARE:
            return False
        # What a pause left out is not made up for.
        self._due = (self._due if stamp - self._due < period else stamp) + period
        return True

    def _compare(self, mark: _Mark, limits: GateLimits) -> Verdict:
        """Return the verdict by the last accepted image and the last one that was held back."""
        last, stray = self._last, self._stray
        if last is None:
            return Verdict.ACCEPTED
        verdict = self._compare_with_last(mark, last, limits)
        if verdict is not Verdict.STRAY or stray is None or mark.by_arrival != stray.by_arrival:
            return verdict
        max_gap = limits.max_gap * NANOSECONDS_PER_SECOND
        since_stray, since_last = mark.stamp - stray.stamp, mark.stamp - last.stamp
        if since_stray == 0:
            return Verdict.REPEATED
        paused = stray.elapsed(mark.times) >= _MIN_SHARE_OF_PAUSE * since_stray
        if since_stray < 0 or (since_stray > max_gap and not paused):
            return Verdict.STRAY
        # A jump within the longest gap needs no restart: points are searched for as after a gap.
        within_gap = mark.by_arrival == last.by_arrival and 0 < since_last <= max_gap
        return Verdict.ACCEPTED if within_gap else Verdict.CLOCK_SET

    def _compare_with_last(self, mark: _Mark, last: _Mark, limits: GateLimits) -> Verdict:
        if mark.by_arrival != last.by_arrival:
            return Verdict.STRAY
        since_last, elapsed = mark.stamp - last.stamp, last.elapsed(mark.times)
        if since_last == 0:
            return Verdict.REPEATED
        if since_last < 0:
            is_late = -since_last <= limits.max_lateness * NANOSECONDS_PER_SECOND
            return Verdict.LATE if is_late else Verdict.STRAY
        if since_last > limits.max_gap * NANOSECONDS_PER_SECOND:
            paused = elapsed >= _MIN_SHARE_OF_PAUSE * since_last
            return Verdict.AFTER_GAP if paused else Verdict.STRAY
        return Verdict.STRAY if self._runs_ahead(mark, last, limits) else Verdict.ACCEPTED

    def _runs_ahead(self, mark: _Mark, last: _Mark, limits: GateLimits) -> bool:
        """Return whether a stamp is ahead of the node's clock and of the usual interval.

        The image before may have been delayed on its way, and this one not: by the clock, it is
        compared with the image that had the shortest way.
        """
        stamps = [one.stamp for one in self._recent]
        intervals = [after - before for before, after in pairwise(stamps)]
        if len(intervals) < _MIN_INTERVALS:
            return False
        ahead = min(mark.stamp - one.stamp - one.elapsed(mark.times) for one in self._recent)
        is_early = ahead > limits.max_lateness * NANOSECONDS_PER_SECOND
        return is_early and mark.stamp - last.stamp > _MAX_INTERVALS * median(intervals)
