"""A camera of a fixed rate before a queue of one frame, on a clock that can be exchanged."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Doubles


@dataclass(frozen=True)
class Clock:
    """Seconds that pass."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


CLOCK = Clock(time.perf_counter, time.sleep)
"""The real one."""


@dataclass(frozen=True)
class Passage:
    """What became of the frames that a camera offered; P of them were processed."""

    rate: float
    """Frames a second."""
    offered: int
    arrived: Doubles
    """[P] s, when each processed frame was due by the camera's rate."""
    done: Doubles
    """[P] s, when its result was there."""


def film(rate: float, offered: int, work: Callable[[int], object], clock: Clock) -> Passage:
    """Process what a camera offers, the newest frame each time, as a robot's subscription does.

    Frame i arrives i / rate seconds after the call. The queue holds one frame: when the work on a
    frame ends, the newest that has arrived by then is next, and those it replaced were dropped;
    a frame that arrives at that very moment has arrived. One thread is enough for this, because
    the queue's state at the end of the work follows from the clock alone. The last frame offered
    is replaced by none, so it is always processed.

    Args:
        rate: frames a second.
        offered: number of frames, at least 1.
        work: called with the index of each frame that is processed.
        clock: the clock to go by.

    """
    start = clock.now()
    arrived, done = [], []
    index = 0
    while index < offered:
        _sleep_until(start + index / rate, clock)
        now = clock.now()
        while index + 1 < offered and start + (index + 1) / rate <= now:
            index += 1
        work(index)
        arrived.append(start + index / rate)
        done.append(clock.now())
        index += 1
    return Passage(rate, offered, np.array(arrived), np.array(done))


def _sleep_until(due: float, clock: Clock) -> None:
    while (wait := due - clock.now()) > 0:
        clock.sleep(wait)
