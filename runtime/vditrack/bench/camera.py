"""A simulated camera of a fixed rate in front of a queue of one frame."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Doubles


@dataclass(frozen=True)
class Clock:
    """A source of time, which tests replace."""

    now: Callable[[], float]
    """Returns the time in seconds."""
    sleep: Callable[[float], None]
    """Waits for a number of seconds."""


CLOCK = Clock(time.perf_counter, time.sleep)
"""The clock of this machine."""


@dataclass(frozen=True)
class FrameTimes:
    """Times of the P frames that were processed, of those that a camera offered."""

    rate: float
    """Frames per second of the camera."""
    offered: int
    """Number of frames that the camera offered."""
    arrived: Doubles
    """[P] seconds at which each processed frame was due by the camera's rate."""
    done: Doubles
    """[P] seconds at which its result was ready."""


def simulate_camera(
    rate: float, offered: int, process: Callable[[int], object], clock: Clock
) -> FrameTimes:
    """Process frames of a camera, always the newest one, as a robot's subscription does.

    Frame i arrives i / rate seconds after the call. The queue holds one frame: when the work on a
    frame ends, the newest frame that has arrived by then is next, and the frames it replaced are
    dropped. A frame that arrives at that very moment counts as arrived. One thread is enough,
    because the state of the queue at the end of the work follows from the clock alone. The last
    frame offered is replaced by none, so it is always processed.

    Args:
        rate: Frames per second.
        offered: Number of frames, at least 1.
        process: Called with the index of each frame that is processed.
        clock: The source of time.

    """
    start = clock.now()
    arrived, done = [], []
    index = 0
    while index < offered:
        _sleep_until(start + index / rate, clock)
        now = clock.now()
        while index + 1 < offered and start + (index + 1) / rate <= now:
            index += 1
        process(index)
        arrived.append(start + index / rate)
        done.append(clock.now())
        index += 1
    return FrameTimes(rate, offered, np.array(arrived), np.array(done))


def _sleep_until(due: float, clock: Clock) -> None:
    while (wait := due - clock.now()) > 0:
        clock.sleep(wait)
