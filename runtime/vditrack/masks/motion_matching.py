"""Neighbours of grid cells where objects are expected by their motion, as array programs.

A tile of the newest frame is compared with all cells of all context frames in its reach at once:
one matrix product of features, and a few small ones that give distances and differences of
velocity. The largest products of each cell are found by a bound, without sorting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log

import numpy as np

from vditrack.arrays import Floats, Indices
from vditrack.masks.candidates import Candidates, candidates_near_strip, plan_searches
from vditrack.masks.context_frames import ContextFrame, MotionPrior
from vditrack.masks.nearest_cells import NearestCells, Span

STRIP_ROWS = 8
"""Rows of cells that are matched together."""
_TILE_COLUMNS = 8
"""Columns of cells that are matched together. Larger tiles compare more cells beyond the reach;
smaller ones make matrix products less efficient. It changes results by rounding alone."""
_BEYOND = np.float32(1e30)
"""Factor on how far a squared distance exceeds a limit: so any excess is more than any product."""
_NEVER = np.float32(-1e20)
"""Products below this are beyond the reach."""
_GROUP = 16
"""Most products of a cell that are ranked together by their maximum."""


@dataclass(frozen=True)
class _Tile:
    """A rectangle of n cells of the newest frame."""

    rows: Span
    columns: Span

    @property
    def place(self) -> tuple[slice, slice]:
        """The index of the tile in an array [rows, columns, ...]."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def centre(self) -> tuple[float, float]:
        """Its centre (x, y) in cells."""
        return (sum(self.columns) - 1) / 2, (sum(self.rows) - 1) / 2

    @property
    def factors(self) -> Floats:
        """Factors of squared distances from the centre, float32 [4, n]; see `_square_terms`."""
        return _factors_from_centre(self.rows[1] - self.rows[0], self.columns[1] - self.columns[0])


class MotionMatching:
    """Finds the neighbours of a frame's cells, label by label, near their predicted places."""

    def __init__(
        self, features: Floats, context: Sequence[ContextFrame], prior: MotionPrior, memory: int
    ) -> None:
        """Plan the search.

        Args:
            features: Features of the newest frame, float32 [rows, columns, D].
            context: Frames with labels.
            prior: Where objects are expected, and how they move.
            memory: Memory of one thread for products and what they are computed from, in bytes.

        """
        self._features, self._context, self._prior = features, context, prior
        self._memory = memory
        self._searches = plan_searches(context, prior)

    def add_neighbours(self, strip: Span, nearest: NearestCells) -> None:
        """Add the neighbours of the cells of a strip, at most `STRIP_ROWS` rows.

        Args:
            strip: The rows.
            nearest: Neighbours of its cells, row by row.

        """
        memory = np.empty(max(self._memory // 4, 1), np.float32)
        for candidates in candidates_near_strip(self._searches, strip, self._memory):
            for tile in _tiles(strip, self._features.shape[1]):
                self._match_tile(tile, candidates, nearest, memory)
            nearest.prune()

    def _match_tile(
        self, tile: _Tile, candidates: Candidates, nearest: NearestCells, memory: Floats
    ) -> None:
        """Add the nearest candidates of a tile's cells to those of its strip."""
        block, columns = self._features[tile.place], self._features.shape[1]
        # Matrix products are faster with a contiguous matrix on the right.
        cells = np.ascontiguousarray(block.reshape(-1, block.shape[2]).T)
        in_strip = np.arange(block.shape[0])[:, None] * columns + np.arange(*tile.columns)
        places, chosen = in_strip.ravel(), _find_within_reach(candidates, tile)
        limit = max(len(memory) // (len(cells) + 2 * len(places)), 1)
        for first in range(0, len(chosen), limit):
            near = candidates.select(chosen[first : first + limit])
            size = len(near.cells) * (len(cells) + 2 * len(places))
            used = memory[:size] if size <= len(memory) else np.empty(size, np.float32)
            products = self._compute_products(tile, cells, near, used)
            bound = _bound_largest(products, nearest.top_k)
            hits = np.flatnonzero(products >= np.maximum(bound, nearest.bounds[places]))
            rows, ones = np.divmod(hits, len(places))
            nearest.add(places[ones], products.ravel()[hits], near.frames[rows], near.cells[rows])

    def _compute_products(
        self, tile: _Tile, cells: Floats, near: Candidates, memory: Floats
    ) -> Floats:
        """Return the dot products [m, n] of m candidates and the n cells of a tile.

        They include the motion prior. Those beyond the reach are below `_NEVER`.

        Args:
            tile: The tile.
            cells: Features of its cells, float32 [D, n].
            near: The candidates.
            memory: Room for the result and what it is computed from, float32 [m (D + 2 n)].

        """
        count, (channels, size) = len(near.cells), cells.shape
        gathered, products, scratch = np.split(memory, np.cumsum([channels, size]) * count)
        gathered = gathered.reshape(count, channels)
        ends = np.searchsorted(near.frames, np.arange(len(self._context) + 1))
        for frame, first, end in zip(self._context, ends, ends[1:], strict=False):
            if first < end:
                known = frame.features.reshape(-1, channels)
                known.take(near.cells[first:end], axis=0, out=gathered[first:end], mode="clip")
        products = np.matmul(gathered, cells, out=products.reshape(count, size))
        scratch = scratch.reshape(count, size)
        x, y = near.terms[:2] - np.array(tile.centre, np.float32)[:, None]
        squares, factors = _square_terms(x, y), tile.factors
        velocity = self._prior.velocity[tile.place].reshape(-1, 2)
        _add_affinity(products, near, velocity, self._prior, scratch)
        _subtract_penalties(products, near, (squares, factors), self._prior, scratch)
        np.matmul(_less(squares, np.square(near.terms[4])) * _BEYOND, factors, out=scratch)
        # NumPy clips several times as fast as it takes a maximum.
        np.clip(scratch, 0, np.inf, out=scratch)
        products -= scratch
        return products


@lru_cache(maxsize=16)
def _factors_from_centre(rows: int, columns: int) -> Floats:
    """Return the factors of squared distances from the centre of a rectangle of cells, [4, n]."""
    down, across = np.mgrid[:rows, :columns].reshape(2, -1).astype(np.float32)
    return _square_factors(across - across.mean(), down - down.mean())


def _tiles(strip: Span, columns: int) -> Iterator[_Tile]:
    for left in range(0, columns, _TILE_COLUMNS):
        yield _Tile(strip, (left, min(left + _TILE_COLUMNS, columns)))


def _find_within_reach(candidates: Candidates, tile: _Tile) -> Indices:
    """Return the indices of candidates whose predicted place is within reach of a tile."""
    x, y, reach = candidates.terms[0], candidates.terms[1], candidates.terms[4]
    (left, right), (top, bottom) = tile.columns, tile.rows
    across = np.maximum(np.maximum(left - x, x - (right - 1)), 0)
    down = np.maximum(np.maximum(top - y, y - (bottom - 1)), 0)
    return np.flatnonzero(across**2 + down**2 <= reach**2)


def _add_affinity(
    products: Floats, near: Candidates, velocity: Floats, prior: MotionPrior, scratch: Floats
) -> None:
    """Add the motion affinity to products [m, n].

    It is λ² exp(-d² / (2 spread²)), where d is the difference between the velocity of a new cell
    and the one expected of a context frame's cell.

    Args:
        products: Changed in place.
        near: The m candidates.
        velocity: Velocities of n cells, float32 [n, 2] (x, y), in cells a frame.
        prior: The motion prior.
        scratch: Room for as many numbers as ``products``.

    """
    scale = np.float32(-1 / (2 * prior.displacement.spread**2))
    # Rounding errors grow with the distance from the origin: none is left where all are equal.
    origin = (velocity.min(axis=0) + velocity.max(axis=0)) / 2
    expected = _square_terms(*(near.terms[2:4] - origin[:, None])) * scale
    # The weight is a term of the exponent, which saves a pass. A prior has a positive weight.
    expected[:, 0] += np.float32(2 * log(prior.settings.motion_weight))
    np.matmul(expected, _square_factors(*(velocity - origin).T), out=scratch)
    np.exp(scratch, out=scratch)
    products += scratch


def _subtract_penalties(
    products: Floats,
    near: Candidates,
    squares: tuple[Floats, Floats],
    prior: MotionPrior,
    scratch: Floats,
) -> None:
    """Subtract the penalties on the distance from predicted places from products [m, n].

    Args:
        products: Changed in place.
        near: The m candidates.
        squares: Matrices [m, 4] and [4, n] whose product is the squared distances.
        prior: The motion prior.
        scratch: Room for as many numbers as ``products``.

    """
    places, factors = squares
    expected = np.square(near.terms[5])
    if prior.falloff > 0:
        np.matmul(places * (np.float32(prior.falloff) / expected)[:, None], factors, out=scratch)
        products -= scratch
    if prior.displacement.uncovered > 0:
        np.matmul(_less(places, expected) * _BEYOND, factors, out=scratch)
        np.clip(scratch, 0, np.float32(prior.displacement.uncovered), out=scratch)
        products -= scratch


def _square_terms(x: Floats, y: Floats) -> Floats:
    """Return [m, 4], whose product with `_square_factors` [4, n] is the squared distances [m, n].

    A matrix product is several times as fast as the differences, their squares and their sum.
    """
    terms = np.ones((len(x), 4), np.float32)
    terms[:, 0] = x * x + y * y
    terms[:, 2], terms[:, 3] = -2 * x, -2 * y
    return terms


def _square_factors(x: Floats, y: Floats) -> Floats:
    factors = np.ones((4, len(x)), np.float32)
    factors[1] = x * x + y * y
    factors[2], factors[3] = x, y
    return factors


def _less(squares: Floats, amounts: Floats) -> Floats:
    """Return terms [m, 4] of the squared distances less an amount [m]."""
    less = squares.copy()
    less[:, 0] -= amounts
    return less


def _bound_largest(products: Floats, count: int) -> Floats:
    """Return a bound [n] that at least ``count`` products of each column of [m, n] reach.

    Products are ranked in groups by their maxima. The maxima of ``count`` groups reach the bound,
    so the largest ``count`` products do. Few others do, and nothing is sorted but the maxima. The
    bound is never below `_NEVER`.
    """
    size = min(_GROUP, len(products) // (2 * count))
    if size == 0:
        return np.full(products.shape[1], _NEVER)
    groups = len(products) // size
    # What the division leaves over joins no group, which may only lower the bound.
    peaks = products[: groups * size].reshape(size, groups, -1).max(axis=0)
    # NumPy partitions along the last axis faster.
    ranked = np.partition(np.ascontiguousarray(peaks.T), -count, axis=1)
    return np.maximum(ranked[:, -count], _NEVER)
