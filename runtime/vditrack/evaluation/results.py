"""What one method did on one clip, and what many clips say together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A share in percent, by bins of something else; curves of several clips add up."""

    bins: tuple[str, ...]
    """[B] what each bin holds, as it is written under a plot."""
    hits: Floats
    """[B] count of what succeeded."""
    totals: Floats
    """[B] count of all."""

    def __add__(self, other: "Curve") -> "Curve":
        """Pool two clips."""
        return Curve(self.bins, self.hits + other.hits, self.totals + other.totals)

    @property
    def percent(self) -> Floats:
        """[B]; NaN where a bin is empty."""
        share = np.full(len(self.totals), np.nan)
        np.divide(self.hits, self.totals, out=share, where=self.totals > 0)
        return 100 * share


@dataclass(frozen=True)
class Result:
    """One method on one clip."""

    clip: str
    method: str
    metrics: Mapping[str, float]
    """By name, in percent, the headline first; NaN where the clip does not define it."""
    curves: Mapping[str, Curve]
    """By title."""
    frames: int
    seconds: float
    """Spent by the method on the whole clip."""
    picture: NDArray[np.uint8] | None
    """[h, w, 3] RGB: a few frames with what was found and the truth; of the worst clips only."""
