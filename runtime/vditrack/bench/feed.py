"""A clip fed to a stream without end, each push timed by stage."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vditrack.bench.camera import Clock, Passage, film
from vditrack.stage_timing import listening

Push = Callable[[NDArray[np.uint8], float], object]
Spent = dict[str, float]
"""Seconds of one push by stage, and under ``WHOLE`` those of the push itself."""

WHOLE = "whole"


class Feed:
    """A clip fed to a stream: there and back without end, so that the picture never jumps.

    The stamp of a frame is its number since the beginning, dropped frames included, whatever the
    rate: so a stream sees drops as what they are, and no jump when the rate changes.
    """

    def __init__(self, push: Push, frames: NDArray[np.uint8], clock: Clock) -> None:
        """Take frames uint8 [T, H, W, 3], T at least 2, to push on ``clock``."""
        self._push = push
        self._frames = frames
        self._clock = clock
        self._number = 0

    def once(self) -> Spent:
        """Push the next frame."""
        self._number += 1
        return self._timed(self._number - 1)

    def freely(self, seconds: float, most: float = float("inf")) -> list[Spent]:
        """Push frame after frame for some seconds, or until ``most`` were pushed; at least one."""
        until = self._clock.now() + seconds
        pushes = [self.once()]
        while len(pushes) < most and self._clock.now() < until:
            pushes.append(self.once())
        return pushes

    def filmed(self, rate: float, seconds: float) -> tuple[Passage, list[Spent]]:
        """Push what a camera of that rate offers in some seconds: at least one frame."""
        first, offered = self._number, max(1, round(rate * seconds))
        pushes: list[Spent] = []
        passage = film(
            rate, offered, lambda index: pushes.append(self._timed(first + index)), self._clock
        )
        self._number += offered
        return passage, pushes

    def _timed(self, number: int) -> Spent:
        spent: Spent = {}
        frame = self._frames[there_and_back(number, len(self._frames))]
        with listening(partial(_add, spent)):
            began = self._clock.now()
            self._push(frame, float(number))
            spent[WHOLE] = self._clock.now() - began
        return spent


def there_and_back(number: int, length: int) -> int:
    """Index of the ``number``-th frame of a clip played to its end, back, and so on."""
    within = number % (2 * length - 2)
    return min(within, 2 * length - 2 - within)


def _add(spent: Spent, stage: str, seconds: float) -> None:
    spent[stage] = spent.get(stage, 0.0) + seconds
