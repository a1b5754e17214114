"""Decides by its stamp whether an image is processed. Needs no ROS."""

from enum import Enum

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND


class Verdict(Enum):
    """What happens to an image."""

    ACCEPTED = "accepted"
    """It is processed."""
    REPEATED = "repeated"
    """It is ignored: its stamp equals that of its predecessor."""
    TOO_OLD = "too old"
    """It is dropped: it is older than allowed."""
    CLOCK_WENT_BACK = "clock went back"
    """It is processed after a reset: its stamp is before that of its predecessor."""
    AFTER_GAP = "after a gap"
    """It is processed after a reset: its predecessor is too long ago."""


class ImageGate:
    """Compares the stamp of each image with the clock and with the last accepted image."""

    def __init__(self) -> None:
        """Start without a predecessor."""
        self._last: int | None = None

    def reset(self) -> None:
        """Forget the last accepted image."""
        self._last = None

    def check(self, stamp: int, age: int, max_age: float, max_gap: float) -> Verdict:
        """Return the verdict on the next image, and remember its stamp if it is not too old.

        Args:
            stamp: of the image, in nanoseconds.
            age: of the image by the node's clock, in nanoseconds.
            max_age: in seconds; 0 allows any age.
            max_gap: in seconds.

        """
        if 0 < max_age * NANOSECONDS_PER_SECOND < age:
            return Verdict.TOO_OLD
        last, self._last = self._last, stamp
        if last is None:
            return Verdict.ACCEPTED
        if stamp == last:
            return Verdict.REPEATED
        if stamp < last:
            return Verdict.CLOCK_WENT_BACK
        after_gap = stamp - last > max_gap * NANOSECONDS_PER_SECOND
        return Verdict.AFTER_GAP if after_gap else Verdict.ACCEPTED
