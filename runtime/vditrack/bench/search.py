"""Search for the highest camera rate that a stream keeps up with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vditrack.bench.feed import Feed
from vditrack.bench.result import CameraRun, seconds_of_pushes, summarize_camera

MAX_DROP_SHARE = 0.05
"""Largest share of dropped frames that counts as keeping up."""
MAX_TRIALS = 5
MIN_TRIAL_FRAMES = 20
"""Frames of the shortest trial: with fewer, one dropped frame is more than 5% of them."""


@dataclass(frozen=True)
class RateSearch:
    """The rates tried and their results."""

    free_rate: float
    """Frames per second without a camera to wait for."""
    trials: tuple[CameraRun, ...]
    """In the order in which they ran."""

    @property
    def highest_rate(self) -> float | None:
        """Highest rate tried that the stream kept up with; None if there is none."""
        return max((trial.rate for trial in self.trials if keeps_up(trial)), default=None)


def keeps_up(trial: CameraRun) -> bool:
    """Return whether at most 5% of the frames were dropped."""
    return trial.dropped <= MAX_DROP_SHARE * trial.offered


def search_highest_rate(
    feed: Feed, seconds: float, report: Callable[[str, float], None]
) -> RateSearch:
    """Bisect for the highest rate in about ``seconds``.

    Work of constant duration keeps up with 1 / 0.95 of its free rate, since 5% may be dropped. The
    bracket reaches a little beyond that, and down to half of the free rate for work that varies.
    After five trials it is a fiftieth of the free rate wide. A slow stream gets fewer trials, so
    that each has its 20 frames, and none if not even one fits. The queue hides about one drop of a
    trial, so a short search finds a rate that is higher by that much.

    Args:
        feed: The stream.
        seconds: Time to spend.
        report: Called before each trial with what is done and the seconds left.

    """
    part = seconds / (MAX_TRIALS + 1)
    free_rate = float(1 / np.mean(seconds_of_pushes(feed.push_unpaced(part))))
    low, high, left = 0.5 * free_rate, 1.1 * free_rate, seconds - part
    trials: list[CameraRun] = []
    while len(trials) < MAX_TRIALS:
        rate = (low + high) / 2
        length = max(part, MIN_TRIAL_FRAMES / rate)
        # Rounding, or half a trial too much, must not cost a trial.
        if left < length / 2:
            break
        report(f"highest rate: {rate:.1f} frames per second", left)
        trials.append(summarize_camera(feed.push_at_rate(rate, length)[0]))
        left -= length
        low, high = (rate, high) if keeps_up(trials[-1]) else (low, rate)
    return RateSearch(free_rate, tuple(trials))
