"""Nearest neighbours of grid cells in context frames, tile by tile."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vditrack.arrays import Bools, Floats, Indices
from vditrack.bundle.configuration import Displacement, Propagation
from vditrack.masks.object_motion import ObjectMotion

Span = tuple[int, int]
"""First and one past the last, along one axis."""


BLOCK_BYTES = 16 << 20
"""Of the dot products that are held at a time. All that an advance needs beside features and labels
stays below three times that, on grids of up to a million cells."""


_SIDE = 8
"""Of the tiles of cells that are matched together. Larger ones look at more cells in vain, with
smaller ones the products of matrices are less efficient."""


@dataclass(frozen=True)
class _Frame:
    """What is remembered of a frame."""

    features: Floats
    """[rows, columns, D]"""
    velocity: Floats | None
    """[rows, columns, 2] (x, y) in cells a frame, if it is known."""
    labels: Floats
    """[rows, columns, K]; labels that came later are zero in it."""
    motion: ObjectMotion
    """Of its K labels."""
    number: int
    marked: bool

    @cached_property
    def owners(self) -> Indices:
        """[rows, columns] the largest label of each cell."""
        return np.asarray(self.labels.argmax(axis=2), np.intp)

    @cached_property
    def shown(self) -> list[int]:
        """Labels that are the largest of a cell."""
        return [int(label) for label in np.unique(self.owners)]


@dataclass(frozen=True)
class _Moving:
    """How the cells of a frame move, and the labels that they may have."""

    velocity: Floats
    """[rows, columns, 2] (x, y) in cells a frame."""
    labels: ObjectMotion
    number: int
    settings: Propagation
    how: Displacement

    def moved(self, frame: _Frame, label: int) -> Floats:
        """How far a label of a remembered frame has moved since: [2] (x, y) in cells."""
        way = self.labels.travelled[label] - frame.motion.travelled[label]
        return np.asarray(way, np.float32)

    def agreement(self, tile: "_Tile", frame: _Frame, label: int, theirs: Bools) -> Floats:
        """What products of cells gain by how well they move together.

        Args:
            tile: n cells of the newest frame.
            frame: a remembered one.
            label: of all the cells in it that are asked.
            theirs: [rows, columns] which m cells of the frame these are.

        Returns:
            [m, n], or [1, n] if it is the same for all m.

        """
        cells = self.velocity[slice(*tile.rows), slice(*tile.columns)].reshape(-1, 2)
        expected = self.labels.velocity[label][None]
        if frame.velocity is not None:
            # A limb goes on beside its body, also when that goes faster now.
            beside = frame.velocity[theirs] - frame.motion.velocity[label]
            expected = expected + np.float32(self.how.deviation) * beside
        squares = np.square(expected[:, None] - cells).sum(axis=2)
        gain = self.settings.motion_weight**2 * np.exp(squares / (-2 * self.how.spread**2))
        return np.asarray(gain, np.float32)

    def radius(self, frame: _Frame) -> float:
        """How far, in cells, from where it moved to, a label is."""
        radius = self.how.slack + self.how.drift * (self.number - frame.number)
        return min(radius, self.settings.radius)

    @property
    def falloff(self) -> float:
        """How much less a product counts at that distance.

        Where an object has to be tells it from those that look the same. One alone is outlined
        better by what it shows: it may shrink.
        """
        several = len(self.labels.velocity) > 2
        return self.how.falloff if several else 0.0

    def reach(self, frame: _Frame, label: int) -> float:
        """How far, in cells, from where it moved to, a label is asked.

        Background that comes into view was never seen. It looks like the one next to it.
        """
        radius = self.radius(frame)
        return radius if label else min(radius + self.how.slack, self.settings.radius)


@dataclass(frozen=True)
class _Tile:
    """Cells next to each other."""

    rows: Span
    columns: Span


@dataclass(frozen=True)
class _Window:
    """All cells of context frames that those of a tile may take their labels from."""

    rows: Span
    columns: Span
    squares: Floats
    """[places, n] of the distances, in cells, of places from each cell."""


@dataclass(frozen=True)
class _Candidates:
    """Cells of context frames that n cells may take their labels from."""

    products: Floats
    """[c, n] dot products of features; -inf beyond the radius."""
    frames: Indices
    """[c, n] indices into the context."""
    cells: Indices
    """[c, n] indices of cells, row by row."""

    def beside(self, others: "_Candidates") -> "_Candidates":
        return _Candidates(
            np.concatenate([self.products, others.products]),
            np.concatenate([self.frames, others.frames]),
            np.concatenate([self.cells, others.cells]),
        )

    def best(self, count: int) -> "_Candidates":
        """Those of the ``count`` largest products, for each of the n cells, in any order."""
        chosen, each = _largest(self.products, count), np.arange(self.products.shape[1])
        return _Candidates(
            self.products[chosen, each], self.frames[chosen, each], self.cells[chosen, each]
        )


def _carried(
    features: Floats, context: Sequence[_Frame], settings: Propagation, moving: _Moving | None
) -> Floats:
    """Soft labels [rows, columns, K] of features [rows, columns, D]."""
    rows, columns = features.shape[:2]
    count = max((frame.labels.shape[2] for frame in context), default=0)
    labels = np.zeros((rows, columns, count), np.float32)
    if not context:
        return labels
    for tile in _tiles(rows, columns, settings.radius):
        best = _best_in_context(features, context, tile, settings, moving)
        place = labels[slice(*tile.rows), slice(*tile.columns)]
        place[:] = _weighted_labels(best, context, count, settings.temperature).reshape(place.shape)
    return labels


def _tiles(rows: int, columns: int, radius: float) -> Iterator[_Tile]:
    reach = int(min(radius, max(rows, columns)))
    side = _SIDE
    # Products with one frame have to fit, and to leave room for what is computed from them.
    while side > 1 and 4 * side**2 * _window_size(side, reach, rows, columns) > BLOCK_BYTES // 4:
        side //= 2
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield _Tile(
                _span(top, top + side, rows),
                _span(left, left + side, columns),
            )


def _window_size(side: int, reach: int, rows: int, columns: int) -> int:
    return min(side + 2 * reach, rows) * min(side + 2 * reach, columns)


def _span(first: int, end: int, count: int) -> Span:
    """Clip to so many; what lies outside becomes empty."""
    return min(max(first, 0), count), min(max(end, 0), count)


def _places(tile: _Tile) -> Floats:
    """Where the cells of a tile are: [n, 2] (x, y)."""
    across, down = np.meshgrid(np.arange(*tile.columns), np.arange(*tile.rows))
    return np.stack([across, down], axis=2).reshape(-1, 2).astype(np.float32)


def _window_around(centres: Floats, radius: float, grid: tuple[int, int]) -> _Window:
    """Window of a grid of (rows, columns) that has all cells near centres [n, 2] (x, y)."""
    reach = min(radius, max(grid))
    (left, top), (right, bottom) = centres.min(axis=0) - reach, centres.max(axis=0) + reach
    rows = _span(int(np.ceil(top)), int(bottom) + 1, grid[0])
    columns = _span(int(np.ceil(left)), int(right) + 1, grid[1])
    down = np.subtract.outer(np.arange(*rows), centres[:, 1])
    across = np.subtract.outer(np.arange(*columns), centres[:, 0])
    squares = ((down**2)[:, None] + (across**2)[None]).reshape(-1, len(centres))
    return _Window(rows, columns, squares.astype(np.float32))


def _best_in_context(
    features: Floats,
    context: Sequence[_Frame],
    tile: _Tile,
    settings: Propagation,
    moving: _Moving | None,
) -> _Candidates:
    """Return the best cells of all context frames together, for each cell of a tile."""
    block = features[slice(*tile.rows), slice(*tile.columns)]
    # Products with a contiguous matrix on the right are half as fast again.
    cells = np.ascontiguousarray(block.reshape(-1, features.shape[2]).T)
    nothing = np.zeros((0, cells.shape[1]))
    best = _Candidates(nothing.astype(np.float32), nothing.astype(np.intp), nothing.astype(np.intp))
    found = (
        _candidates_beside(cells, context, tile, settings)
        if moving is None
        else _candidates_moved(cells, context, tile, moving)
    )
    for some in found:
        best = best.beside(some).best(settings.top_k)
    return best


def _candidates_moved(
    cells: Floats, context: Sequence[_Frame], tile: _Tile, moving: _Moving
) -> Iterator[_Candidates]:
    """Return cells of each label in each frame of the context, near where they are by now."""
    for index, frame in enumerate(context):
        for label in frame.shown:
            centres = _places(tile) - moving.moved(frame, label)
            radius, reach = moving.radius(frame), moving.reach(frame, label)
            window = _window_around(centres, reach, frame.owners.shape)
            theirs = np.zeros(frame.owners.shape, np.bool_)
            place = slice(*window.rows), slice(*window.columns)
            theirs[place] = frame.owners[place] == label
            if not theirs.any():
                continue
            squares = window.squares[theirs[place].ravel()]
            products = frame.features[theirs] @ cells
            products += moving.agreement(tile, frame, label, theirs)
            products -= np.float32(moving.falloff / radius**2) * squares
            products[squares > radius**2] -= moving.how.uncovered
            products[squares > reach**2] = -np.inf
            found = np.flatnonzero(theirs)[:, None]
            frames = np.full(products.shape, index, np.intp)
            yield _Candidates(products, frames, np.broadcast_to(found, products.shape))


def _candidates_beside(
    cells: Floats, context: Sequence[_Frame], tile: _Tile, settings: Propagation
) -> Iterator[_Candidates]:
    """Return the best cells of some frames of the context after the other, near those of a tile."""
    rows, columns = context[0].owners.shape
    window = _window_around(_places(tile), settings.radius, (rows, columns))
    beyond = window.squares > settings.radius**2
    handicap = np.where(beyond, np.float32(-np.inf), np.float32(0))
    step = max(BLOCK_BYTES // handicap.nbytes, 1)
    for first in range(0, len(context), step):
        scores = _scores(cells, context[first : first + step], window)
        found = _candidates(scores, handicap, settings.top_k)
        shown = _cells(found.cells, window, columns)
        yield replace(found, frames=found.frames + first, cells=shown)


def _scores(cells: Floats, frames: Sequence[_Frame], window: _Window) -> Floats:
    """Dot products [frames, places, n] of features [D, n] with those in the window of frames."""
    place = slice(*window.rows), slice(*window.columns)
    shape = frames[0].features[place].shape[:2]
    scores = np.empty((len(frames), *shape, cells.shape[1]), np.float32)
    for frame, products in zip(frames, scores, strict=True):
        np.matmul(frame.features[place], cells, out=products)
    return scores.reshape(len(frames), -1, cells.shape[1])


def _candidates(scores: Floats, handicap: Floats, count: int) -> _Candidates:
    """Return candidates, places for cells, that hold the ``count`` best of scores.

    They are all frames at as many places: a score among the best is at a place whose own best is
    among the best of places. To look for places takes one comparison a score, and no sorting.
    """
    peaks = scores.max(axis=0)
    peaks += handicap
    places, each = _largest(peaks, count), np.arange(peaks.shape[1])
    products = scores[:, places, each] + handicap[places, each]
    frames = np.arange(len(scores))[:, None, None]
    return _Candidates(
        products.reshape(-1, len(each)),
        np.broadcast_to(frames, products.shape).reshape(-1, len(each)),
        np.broadcast_to(places, products.shape).reshape(-1, len(each)),
    )


def _largest(values: Floats, count: int) -> Indices:
    """Indices [count, n] of the largest values [m, n] along the first axis; all if m is smaller."""
    if len(values) <= count:
        return np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    # NumPy partitions along the last axis faster.
    order = np.argpartition(np.ascontiguousarray(values.T), -count, axis=1)
    return order[:, -count:].T


def _cells(places: Indices, window: _Window, columns: int) -> Indices:
    """Indices of cells, of a grid of so many columns, from those of places in the window."""
    (top, _), (left, right) = window.rows, window.columns
    row, column = np.divmod(places, right - left)
    return np.asarray((top + row) * columns + left + column, np.intp)


def _weighted_labels(
    best: _Candidates, context: Sequence[_Frame], count: int, temperature: float
) -> Floats:
    """Mean labels [n, count] of candidates, weighted by the softmax of their products.

    A cell for which there are none is background: what it shows has just come into view.
    """
    products = best.products
    largest = products.max(axis=0, initial=-np.inf)
    new = np.isneginf(largest)
    weights = np.exp((products - np.where(new, 0, largest)) / np.float32(temperature))
    weights /= np.where(new, 1, weights.sum(axis=0))
    labels = np.zeros((*products.shape, count), np.float32)
    for index in np.unique(best.frames):
        chosen, known = best.frames == index, context[index].labels
        labels[chosen, : known.shape[2]] = known.reshape(-1, known.shape[2])[best.cells[chosen]]
    means = np.asarray(np.einsum("cn,cnk->nk", weights, labels), np.float32)
    means[new, 0] = 1
    return means
