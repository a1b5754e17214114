"""Decides by its stamp whether an image is processed. Needs no ROS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND

_SIMULATION_START = NANOSECONDS_PER_SECOND
"""Nanoseconds of the node's clock until which a stamp of zero is a time."""

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
    CLOCK_SET = "clock set"
    """It is processed after a reset: its stamp is well before that of its predecessor, or images
    without stamps are followed by some with stamps."""
    AFTER_GAP = "after a gap"
    """It is processed after a reset: its predecessor is too long ago."""

    @property
    def is_drop(self) -> bool:
        """Whether the image is dropped; the value is then one of `counters.DROP_REASONS`."""
        return self in (Verdict.REPEATED, Verdict.LATE, Verdict.UNSTAMPED, Verdict.TOO_OLD)


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
    """Time by which a stamp may be before that of a predecessor without a reset."""
    max_rate: float = 0.0
    """Images that are processed per second, at most; 0 for all."""


class ImageGate:
    """Compares the stamp of each image with the clock and with the last accepted image."""

    def __init__(self) -> None:
        """Start without a predecessor."""
        self._last: int | None = None
        self._last_by_arrival = False
        self._last_stamped: int | None = None
        """When the last image with a stamp arrived."""
        self._due = 0
        """Stamp from which on the next image is processed, if their rate is limited."""

    def reset(self) -> None:
        """Forget the last accepted image."""
        self._last = None

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
            self._last_stamped = times.arrival
            if 0 < limits.max_age * NANOSECONDS_PER_SECOND < times.now - times.stamp:
                return Verdict.TOO_OLD, times.stamp
        elif self._last_stamped is not None and (
            times.arrival - self._last_stamped <= limits.max_gap * NANOSECONDS_PER_SECOND
        ):
            return Verdict.UNSTAMPED, None
        stamp = times.arrival if by_arrival else times.stamp
        verdict = self._compare(stamp, by_arrival, limits)
        if not verdict.is_drop:
            is_first = self._last is None or verdict is not Verdict.ACCEPTED
            self._last, self._last_by_arrival = stamp, by_arrival
            if not self._is_due(stamp, limits, is_first=is_first):
                verdict = Verdict.LEFT_OUT
        return verdict, None if by_arrival else stamp

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

    def _compare(self, stamp: int, by_arrival: bool, limits: GateLimits) -> Verdict:
        """Return the verdict by the last accepted image."""
        if self._last is None:
            return Verdict.ACCEPTED
        if by_arrival != self._last_by_arrival:
            return Verdict.CLOCK_SET
        since_last = stamp - self._last
        if since_last == 0:
            return Verdict.REPEATED
        if since_last < 0:
            is_late = -since_last <= limits.max_lateness * NANOSECONDS_PER_SECOND
            return Verdict.LATE if is_late else Verdict.CLOCK_SET
        after_gap = since_last > limits.max_gap * NANOSECONDS_PER_SECOND
        return Verdict.AFTER_GAP if after_gap else Verdict.ACCEPTED
