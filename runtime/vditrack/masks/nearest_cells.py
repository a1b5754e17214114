"""The nearest neighbours of grid cells in context frames, and the labels that they give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats, Indices
from vditrack.masks.context_frames import ContextFrame

Span = tuple[int, int]
"""First index and one past the last, along one axis."""
Numbers = NDArray[np.signedinteger[Any]]


class NearestCells:
    """The ``top_k`` neighbours of each of n cells with the largest products, found part by part."""

    def __init__(self, count: int, top_k: int) -> None:
        """Start without neighbours.

        Args:
            count: Number of cells, n.
            top_k: Number of neighbours of a cell.

        """
        self.bounds = np.full(count, -np.inf, np.float32)
        """Products below which a cell's neighbour is none of the ``top_k``, as far as is known
        after `prune`, float32 [n]."""
        self.top_k = top_k
        """Number of neighbours of a cell."""
        self._products = np.zeros((count, 0), np.float32)
        self._frames = np.zeros((count, 0), np.int32)
        self._cells = np.zeros((count, 0), np.int32)
        # Of the neighbours that are added: place, product, frame and cell.
        self._added: list[tuple[Indices, Floats, Numbers, Numbers]] = []

    def add(self, places: Indices, products: Floats, frames: Numbers, cells: Numbers) -> None:
        """Add m neighbours.

        Args:
            places: Which of the n cells each is a neighbour of, intp [m].
            products: Its product, float32 [m].
            frames: Its index into the context, [m].
            cells: Its row-major index in the grid, [m].

        """
        self._added.append((places, products, frames, cells))

    def prune(self) -> None:
        """Keep the ``top_k`` neighbours of each cell."""
        if not self._added:
            return
        places, products, frames, cells = map(np.concatenate, zip(*self._added, strict=True))
        self._added = []
        order = np.argsort(places, kind="stable")
        places, (count, known) = places[order], self._products.shape
        sizes = np.bincount(places, minlength=count)
        # Each cell's neighbours are numbered, and put beside those that it has.
        target = places, known + np.arange(len(places)) - (np.cumsum(sizes) - sizes)[places]
        beside = ((0, 0), (0, int(sizes.max(initial=0))))
        self._products = np.pad(self._products, beside, constant_values=-np.inf)
        self._frames, self._cells = np.pad(self._frames, beside), np.pad(self._cells, beside)
        self._products[target] = products[order]
        self._frames[target], self._cells[target] = frames[order], cells[order]
        if self._products.shape[1] > self.top_k:
            best = np.argpartition(self._products, -self.top_k, axis=1)[:, -self.top_k :]
            self._products = np.take_along_axis(self._products, best, axis=1)
            self._frames = np.take_along_axis(self._frames, best, axis=1)
            self._cells = np.take_along_axis(self._cells, best, axis=1)
            self.bounds = self._products.min(axis=1)

    def mean_labels(
        self, context: Sequence[ContextFrame], count: int, temperature: float
    ) -> Floats:
        """Return the mean labels of the neighbours, float32 [n, count].

        They are weighted by the softmax of products. A cell without neighbours is background: what
        it shows was just uncovered.

        Args:
            context: The frames of the neighbours.
            count: Number of labels.
            temperature: Temperature of the softmax.

        """
        largest = self._products.max(axis=1, initial=-np.inf, keepdims=True)
        uncovered = np.isneginf(largest)
        weights = np.exp(
            (self._products - np.where(uncovered, 0, largest)) / np.float32(temperature)
        )
        weights /= np.where(uncovered, 1, weights.sum(axis=1, keepdims=True))
        labels = np.zeros((*self._products.shape, count), np.float32)
        for index, frame in enumerate(context):
            chosen, known = self._frames == index, frame.labels.shape[2]
            labels[chosen, :known] = frame.labels.reshape(-1, known)[self._cells[chosen]]
        means = np.asarray((weights[:, None] @ labels)[:, 0], np.float32)
        means[uncovered[:, 0], 0] = 1
        return means
