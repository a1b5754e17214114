"""Counts the arrays that are in memory at a time."""

import weakref

import numpy as np


class LivingArrays:
    """Arrays that exist."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, array: np.ndarray) -> np.ndarray:
        """Return a copy, which is counted as long as it or a view of it exists."""
        copy = array.copy()
        self.now += 1
        self.most = max(self.most, self.now)
        weakref.finalize(copy, self._remove)
        return copy

    def _remove(self) -> None:
        self.now -= 1
