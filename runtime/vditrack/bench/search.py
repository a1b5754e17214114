"""The highest camera rate that a stream keeps up with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vditrack.bench.feed import Feed
from vditrack.bench.result import Filmed, filmed, wholes

DROPS = 0.05
"""Largest share of dropped frames that counts as keeping up."""
TRIALS = 5
FRAMES = 20
"""Frames a trial needs: fewer, and one dropped frame is more than 5% of them."""


@dataclass(frozen=True)
class Search:
    """What was tried."""

    free_rate: float
    """Frames a second without a camera to wait for."""
    trials: tuple[Filmed, ...]

    @property
    def highest_rate(self) -> float | None:
        """Highest of the rates tried that was kept up with; None if there was none."""
        return max((trial.rate for trial in self.trials if keeps_up(trial)), default=None)


def keeps_up(trial: Filmed) -> bool:
    """Whether few enough frames were dropped."""
    return trial.dropped <= DROPS * trial.offered


def search(feed: Feed, seconds: float, report: Callable[[str, float], None]) -> Search:
    """Bisect for the highest rate in about ``seconds``.

    Work that always takes the same time keeps up with 1 / 0.95 of its free rate, for 5% may be
    dropped; the bracket reaches a little beyond it, and down to half of the free rate for work
    that varies. After five trials it is a fiftieth of the free rate wide. A slow stream gets
    fewer trials, that each may have its frames: none at all where even one would not fit. The
    queue hides about one drop of a trial, so a short search finds a rate that much too high.

    Args:
        feed: the stream.
        seconds: time to spend.
        report: called before each trial with what is done and the seconds left.

    """
    part = seconds / (TRIALS + 1)
    free_rate = float(1 / np.mean(wholes(feed.freely(part))))
    low, high, left = 0.5 * free_rate, 1.1 * free_rate, seconds - part
    trials: list[Filmed] = []
    while len(trials) < TRIALS:
        rate = (low + high) / 2
        length = max(part, FRAMES / rate)
        # So that rounding, or half a trial too much, takes no trial away.
        if left < length / 2:
            break
        report(f"highest rate: {rate:.1f} frames a second", left)
        trials.append(filmed(feed.filmed(rate, length)[0]))
        left -= length
        low, high = (rate, high) if keeps_up(trials[-1]) else (low, rate)
    return Search(free_rate, tuple(trials))
