"""What becomes of an image, by its stamp."""

from enum import Enum

from vditrack_ros.stamps import SECOND


class Arrival(Enum):
    """What becomes of an image."""

    TAKEN = "taken"
    REPEATED = "repeated"
    """The stamp of the image before: it is the same."""
    OLD = "old"
    """Older than allowed."""
    BACK = "back"
    """Taken, but the clock went back: nothing before it counts."""
    GAP = "gap"
    """Taken, but so long after the one before that nothing before it counts."""


class Arrivals:
    """Compares each image's stamp with the clock and with the image before."""

    def __init__(self) -> None:
        self._last: int | None = None

    def reset(self) -> None:
        """Forget the image before."""
        self._last = None

    def judge(self, stamp: int, age: int, max_age: float, max_gap: float) -> Arrival:
        """Judge the next image; one that is taken becomes the image before.

        Args:
            stamp: its time, in nanoseconds.
            age: of the image by the node's clock, in nanoseconds.
            max_age: seconds; 0 allows any age.
            max_gap: seconds.

        """
        if 0 < max_age * SECOND < age:
            return Arrival.OLD
        last, self._last = self._last, stamp
        if last is None:
            return Arrival.TAKEN
        if stamp == last:
            return Arrival.REPEATED
        if stamp < last:
            return Arrival.BACK
        return Arrival.GAP if stamp - last > max_gap * SECOND else Arrival.TAKEN
