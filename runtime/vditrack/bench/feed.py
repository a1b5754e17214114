"""Feeds a clip to a stream without end, and times each push by stage."""

from collections.abc import Callable
from functools import partial

from vditrack.arrays import Frame
from vditrack.bench.camera import Clock, FrameTimes, simulate_camera
from vditrack.stage_timing import record_stages

Push = Callable[[Frame, float], object]
"""Called with a frame uint8 [H, W, 3] and its stamp in seconds."""
StageSeconds = dict[str, float]
"""Seconds of one push by stage, and under ``WHOLE`` those of the push itself."""

WHOLE = "whole"


class Feed:
    """A clip that is fed to a stream forward and backward in turn, so that it never jumps.

    The stamp of a frame is its number since the start, dropped frames included, whatever the rate.
    So the stream sees a drop as what it is, and no jump in time when the rate changes.
    """

    def __init__(self, push: Push, frames: Frame, clock: Clock) -> None:
        """Feed frames uint8 [T, H, W, 3], T at least 2, to ``push``, timed by ``clock``."""
        self._push = push
        self._frames = frames
        self._clock = clock
        self._number = 0

    def push_next(self) -> StageSeconds:
        """Push the next frame."""
        self._number += 1
        return self._push_timed(self._number - 1)

    def push_unpaced(self, seconds: float, limit: float = float("inf")) -> list[StageSeconds]:
        """Push frames without a pause for some seconds or ``limit`` frames; at least one."""
        until = self._clock.now() + seconds
        pushes = [self.push_next()]
        while len(pushes) < limit and self._clock.now() < until:
            pushes.append(self.push_next())
        return pushes

    def push_at_rate(self, rate: float, seconds: float) -> tuple[FrameTimes, list[StageSeconds]]:
        """Push what a camera of ``rate`` frames per second offers in some seconds; at least one."""
        first, offered = self._number, max(1, round(rate * seconds))
        pushes: list[StageSeconds] = []
        times = simulate_camera(
            rate,
            offered,
            lambda index: pushes.append(self._push_timed(first + index)),
            self._clock,
        )
        self._number += offered
        return times, pushes

    def _push_timed(self, number: int) -> StageSeconds:
        spent: StageSeconds = {}
        frame = self._frames[ping_pong_index(number, len(self._frames))]
        with record_stages(partial(_add_seconds, spent)):
            began = self._clock.now()
            self._push(frame, float(number))
            spent[WHOLE] = self._clock.now() - began
        return spent


def ping_pong_index(number: int, length: int) -> int:
    """Return the index of frame ``number`` of a clip played forward and backward in turn."""
    within = number % (2 * length - 2)
    return min(within, 2 * length - 2 - within)


def _add_seconds(spent: StageSeconds, stage: str, seconds: float) -> None:
    spent[stage] = spent.get(stage, 0.0) + seconds
