"""The newest depth images of a camera, found by the stamps of its images. Needs no ROS."""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds

_LENGTH = 16
"""Depth images kept: half a second at 30 Hz, so that an image may come so much later."""
_SILENCE = 3.0
"""Intervals between depth images after which the next one is not expected any more."""
_MIN_SILENCE = 500_000_000
"""Nanoseconds of silence below which the next depth image is always expected."""
_BETTER = 0.5
"""Share of the nearest depth image's distance from an image below which a later one is worth
waiting for."""


@dataclass(frozen=True)
class StampedDepth:
    """A depth image that was received."""

    stamp: int
    """Nanoseconds: the header's, or the time of arrival if that is zero."""
    arrival: int
    """Nanoseconds of a clock that is never set."""
    message: Any


class DepthBuffer:
    """The newest depth images.

    Images and depth arrive in any order. An image whose depth image has not arrived can wait for
    it: from the stamps so far the buffer predicts whether a nearer one comes.
    """

    def __init__(self) -> None:
        """Start without depth images."""
        self._entries: deque[StampedDepth] = deque(maxlen=_LENGTH)

    @property
    def newest(self) -> StampedDepth | None:
        """The depth image that arrived last."""
        return self._entries[-1] if self._entries else None

    def add(self, message: Any, arrival: int) -> None:  # noqa: ANN401
        """Add a depth image.

        Args:
            message: has a header with a stamp.
            arrival: nanoseconds of a clock that is never set.

        """
        stamp = to_nanoseconds(message.header.stamp) or arrival
        self._entries.append(StampedDepth(stamp, arrival, message))

    def find_nearest(self, stamp: int) -> StampedDepth | None:
        """Return the depth image whose stamp is nearest; None if there is none.

        Args:
            stamp: of an image, in nanoseconds.

        """
        return min(self._entries, key=lambda entry: abs(entry.stamp - stamp), default=None)

    def is_silent(self, now: int) -> bool:
        """Return whether depth images have ceased to arrive, or never did.

        Args:
            now: nanoseconds of a clock that is never set.

        """
        if not self._entries:
            return True
        limit = max(_MIN_SILENCE, _SILENCE * (self._usual_interval() or 0))
        return now - self._entries[-1].arrival > limit

    def is_nearer_expected(self, stamp: int, tolerance: float, now: int) -> bool:
        """Return whether a depth image is likely to arrive that is nearer than those here.

        Args:
            stamp: of an image, in nanoseconds.
            tolerance: maximum difference of the two stamps, in seconds.
            now: nanoseconds of a clock that is never set.

        """
        nearest = self.find_nearest(stamp)
        if nearest is None or self.is_silent(now):
            return False
        distance, newest = abs(nearest.stamp - stamp), self._entries[-1].stamp
        interval = self._usual_interval()
        if interval is None:
            return distance > 0 and newest < stamp
        following = newest + interval * max(1, round((stamp - newest) / interval))
        expected = abs(following - stamp)
        limit = min(_BETTER * distance, tolerance * NANOSECONDS_PER_SECOND)
        return expected < limit

    def _usual_interval(self) -> float | None:
        """Return the median interval between the stamps in nanoseconds; None if it is unknown."""
        stamps = sorted({entry.stamp for entry in self._entries})
        return median(after - before for before, after in pairwise(stamps)) if stamps[1:] else None
