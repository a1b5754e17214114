"""The time stamps of a stream's frames."""

from collections import deque
from statistics import median

import numpy as np
from numpy.typing import ArrayLike

from vditrack.arrays import Doubles
from vditrack.errors import InputError


class FrameClock:
    """Checks that the stamps of a stream's frames are in order, and measures the usual interval."""

    def __init__(self, history: int) -> None:
        """Start before the first frame.

        Args:
            history: frame intervals whose median is the usual interval.

        """
        self.stamp: float | None = None
        """Stamp of the newest frame, in seconds."""
        self._intervals: deque[float] = deque(maxlen=history)

    @property
    def usual_interval(self) -> float | None:
        """Median of the last intervals, in seconds; None before the second frame."""
        return median(self._intervals) if self._intervals else None

    def advance(self, stamp: float) -> float:
        """Take the stamp of the next frame, in seconds.

        Returns:
            Usual intervals since the last frame, at least 1; 0 for the same frame again.

        Raises:
            InputError: The stamp is not a number, or older than the last one.

        """
        if not np.isfinite(stamp):
            raise InputError(f"stamp {stamp} is not a time.")
        interval = 0.0 if self.stamp is None else stamp - self.stamp
        if interval < 0:
            raise InputError(
                f"stamp {stamp} is older than the last frame's, {self.stamp}. Push frames in "
                "order; after a jump of the clock call reset()."
            )
        first, self.stamp = self.stamp is None, stamp
        if interval == 0:
            return 1.0 if first else 0.0
        usual = self.usual_interval or interval
        self._intervals.append(interval)
        return max(1.0, float(round(interval / usual)))


def measure_intervals(times: ArrayLike, frames: int, history: int) -> Doubles:
    """Return the usual intervals [T] between each frame of a clip and the one before.

    They are at least 1, and more after missing frames. That of the first frame is 1.

    Args:
        times: [T] in seconds, ascending.
        frames: T.
        history: frame intervals whose median is the usual interval.

    Raises:
        InputError: There is not one time for each frame, or they are not finite and ascending.

    """
    seconds = np.asarray(times, np.float64)
    if seconds.shape != (frames,):
        raise InputError(f"times have shape {list(seconds.shape)}; give one a frame: [{frames}].")
    # Written so that NaN fails too.
    if not (np.diff(seconds) > 0).all():
        raise InputError("times do not ascend. Give the time of each frame, in seconds.")
    clock = FrameClock(history)
    return np.array([clock.advance(time) for time in seconds.tolist()])
