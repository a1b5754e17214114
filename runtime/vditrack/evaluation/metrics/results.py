"""Results of one method on one clip: metrics, events and curves."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles

VISIBLE_OUTSIDE = "visible outside"
"""Name of the rate of positions far outside the frame that are predicted visible."""
SMALLER_IS_BETTER = frozenset({VISIBLE_OUTSIDE})
"""Names of the metrics and events of which a smaller value is better."""


@dataclass(frozen=True)
class Curve:
    """A success rate by bins of another quantity. Curves of several clips can be added."""

    bins: tuple[str, ...]
    """Labels of the B bins."""
    hits: Doubles
    """Number of successes in each bin, float64 [B]."""
    totals: Doubles
    """Number of cases in each bin, float64 [B]."""
    ideal: tuple[float, ...] = ()
    """Success rate that each bin should have, in percent; empty if a higher one is better."""

    def __add__(self, other: "Curve") -> "Curve":
        """Return the curve of both clips together."""
        return Curve(self.bins, self.hits + other.hits, self.totals + other.totals, self.ideal)

    @property
    def percent(self) -> Doubles:
        """Success rate of each bin in percent, float64 [B]; NaN if the bin is empty."""
        share = np.full(len(self.totals), np.nan)
        np.divide(self.hits, self.totals, out=share, where=self.totals > 0)
        return 100 * share


@dataclass(frozen=True)
class Share:
    """Number of events of one kind, and how many of them are successes.

    For the kinds in `SMALLER_IS_BETTER` they are faults.
    """

    hits: int
    total: int

    @property
    def percent(self) -> float:
        """Share of successes in percent; NaN without events."""
        return 100 * self.hits / self.total if self.total else np.nan


@dataclass(frozen=True)
class Result:
    """The result of one method on one clip."""

    clip: str
    method: str
    metrics: Mapping[str, float]
    """Metrics by name in percent, the headline metric first; NaN if one is undefined."""
    events: Mapping[str, Share]
    """Events by name; kinds without events in the clip are left out."""
    curves: Mapping[str, Curve]
    """Curves by title."""
    frames: int
    seconds: float
    """Time that the method took for the clip, in seconds."""
    picture: NDArray[np.uint8] | None
    """A few frames with result and truth, uint8 [h, w, 3] RGB; None unless the clip is among the
    worst."""

    def percent(self, name: str) -> float:
        """Return a metric or the success rate of events, in percent; NaN if it is undefined."""
        return self.metrics[name] if name in self.metrics else self._share(name).percent

    def count(self, name: str) -> int:
        """Return the weight of the clip in a mean: its number of events, or 1 for a metric."""
        return 1 if name in self.metrics else self._share(name).total

    def _share(self, name: str) -> Share:
        return self.events.get(name, Share(0, 0))
