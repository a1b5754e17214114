"""What one method did on one clip, and what many clips say together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles


@dataclass(frozen=True)
class Curve:
    """A share in percent, by bins of something else; curves of several clips add up."""

    bins: tuple[str, ...]
    """[B] what each bin holds, as it is written under a plot."""
    hits: Doubles
    """[B] count of what succeeded."""
    totals: Doubles
    """[B] count of all."""

    def __add__(self, other: "Curve") -> "Curve":
        """Pool two clips."""
        return Curve(self.bins, self.hits + other.hits, self.totals + other.totals)

    @property
    def percent(self) -> Doubles:
        """[B]; NaN where a bin is empty."""
        share = np.full(len(self.totals), np.nan)
        np.divide(self.hits, self.totals, out=share, where=self.totals > 0)
        return 100 * share


@dataclass(frozen=True)
class Share:
    """Events of one kind, and how many of them went well; those of several clips are pooled."""

    hits: int
    total: int

    @property
    def percent(self) -> float:
        """Of the events that went well; NaN where there was none."""
        return 100 * self.hits / self.total if self.total else np.nan


@dataclass(frozen=True)
class Result:
    """One method on one clip."""

    clip: str
    method: str
    metrics: Mapping[str, float]
    """By name, in percent, the headline first; NaN where the clip does not define it."""
    events: Mapping[str, Share]
    """By name; what never happens in the clip is left out."""
    curves: Mapping[str, Curve]
    """By title."""
    frames: int
    seconds: float
    """Spent by the method on the whole clip."""
    picture: NDArray[np.uint8] | None
    """[h, w, 3] RGB: a few frames with what was found and the truth; of the worst clips only."""

    def percent(self, name: str) -> float:
        """Value of a metric or of a kind of event; NaN where the clip does not define it."""
        return self.metrics[name] if name in self.metrics else self._share(name).percent

    def count(self, name: str) -> int:
        """How much the clip counts where clips are summed up: its events, or once for a metric."""
        return 1 if name in self.metrics else self._share(name).total

    def _share(self, name: str) -> Share:
        return self.events.get(name, Share(0, 0))
