"""Neighbours of grid cells within a fixed radius, tile by tile."""

from collections.abc import Iterator, Sequence

import numpy as np

from vditrack.arrays import Floats, Indices
from vditrack.bundle.configuration import Propagation
from vditrack.masks.context_frames import ContextFrame
from vditrack.masks.nearest_cells import NearestCells, Span

STRIP_ROWS = 8
"""Rows of cells that are matched together."""
_TILE_COLUMNS = 8
"""Columns of cells that are matched together. Larger tiles compare more cells beyond the radius;
smaller ones make matrix products less efficient. It changes results by rounding alone."""
_LEAST = np.finfo(np.float32).min
"""Smallest float32, above the -inf beyond the radius."""


class WindowMatching:
    """Finds the neighbours of a frame's cells within a radius of each.

    The cells that a tile is compared with are a rectangle, so their features are multiplied where
    they are, without a copy.
    """

    def __init__(
        self,
        features: Floats,
        context: Sequence[ContextFrame],
        settings: Propagation,
        memory: int,
    ) -> None:
        """Plan the search.

        Args:
            features: Features of the newest frame, float32 [rows, columns, D].
            context: Frames with labels.
            settings: Settings of label propagation.
            memory: Memory of one thread for products, in bytes.

        """
        self._features, self._context, self._memory = features, context, memory
        self._radius = settings.radius
        self._reach = int(min(settings.radius, max(features.shape[:2])))

    def add_neighbours(self, strip: Span, nearest: NearestCells) -> None:
        """Add the neighbours of the cells of a strip, at most `STRIP_ROWS` rows.

        Args:
            strip: The rows.
            nearest: Neighbours of its cells, row by row.

        """
        for rows, columns in self._tiles(strip):
            self._match_tile(strip, rows, columns, nearest)
        nearest.prune()

    def _tiles(self, strip: Span) -> Iterator[tuple[Span, Span]]:
        """Yield tiles whose products with one frame fit in a quarter of the memory."""
        grid = self._features.shape[:2]
        side = max(STRIP_ROWS, _TILE_COLUMNS)
        while side > 1 and 4 * side**2 * _window_size(side, self._reach, grid) > self._memory // 4:
            side //= 2
        for top in range(*strip, side):
            for left in range(0, grid[1], side):
                yield (top, min(top + side, strip[1])), (left, min(left + side, grid[1]))

    def _match_tile(self, strip: Span, rows: Span, columns: Span, nearest: NearestCells) -> None:
        block, width = self._features[slice(*rows), slice(*columns)], self._features.shape[1]
        # Matrix products are 1.5 times as fast with a contiguous matrix on the right.
        cells = np.ascontiguousarray(block.reshape(-1, block.shape[2]).T)
        across, down = np.meshgrid(np.arange(*columns), np.arange(*rows))
        places = ((down - strip[0]) * width + across).ravel()
        window = self._window(rows), self._window(columns, axis=1)
        squares = (
            np.square(np.subtract.outer(np.arange(*window[0]), down.ravel()))[:, None]
            + np.square(np.subtract.outer(np.arange(*window[1]), across.ravel()))[None]
        ).reshape(-1, len(places))
        handicap = np.where(squares > self._radius**2, np.float32(-np.inf), np.float32(0))
        step = max(self._memory // handicap.nbytes, 1)
        for first in range(0, len(self._context), step):
            products = _dot_products(cells, self._context[first : first + step], window)
            found, best = _top_places(products, handicap, nearest.top_k)
            row, column = np.divmod(best, window[1][1] - window[1][0])
            indices = (window[0][0] + row) * width + window[1][0] + column
            # As many of a cell's products as are needed reach the least of its places' maxima.
            bounds = found.max(axis=0).min(axis=0) if len(found[0]) >= nearest.top_k else _LEAST
            frames, ranks, ones = np.nonzero(found >= np.maximum(bounds, _LEAST))
            chosen = found[frames, ranks, ones], first + frames, indices[ranks, ones]
            nearest.add(places[ones], *chosen)

    def _window(self, span: Span, axis: int = 0) -> Span:
        """Return the span of an axis within the radius of a span."""
        return max(span[0] - self._reach, 0), min(span[1] + self._reach, self._features.shape[axis])


def _window_size(side: int, reach: int, grid: tuple[int, ...]) -> int:
    return min(side + 2 * reach, grid[0]) * min(side + 2 * reach, grid[1])


def _dot_products(
    cells: Floats, frames: Sequence[ContextFrame], window: tuple[Span, Span]
) -> Floats:
    """Return dot products of features [D, n] with a window of frames, [frames, places, n]."""
    place = slice(*window[0]), slice(*window[1])
    shape = frames[0].features[place].shape[:2]
    products = np.empty((len(frames), *shape, cells.shape[1]), np.float32)
    for frame, out in zip(frames, products, strict=True):
        np.matmul(frame.features[place], cells, out=out)
    return products.reshape(len(frames), -1, cells.shape[1])


def _top_places(products: Floats, handicap: Floats, count: int) -> tuple[Floats, Indices]:
    """Return products that contain the ``count`` largest of each cell, and their places.

    They are those of all frames at ``count`` places of the window. A product among the largest lies
    at a place whose maximum over frames is among the largest maxima, so places are ranked by their
    maxima: one comparison a product, and no sorting.

    Args:
        products: Dot products, float32 [frames, places, n].
        handicap: Added to the products of a place, float32 [places, n].
        count: Number of places.

    Returns:
        Products, float32 [frames, count, n], and indices of places, intp [count, n].

    """
    peaks = products.max(axis=0)
    peaks += handicap
    each = np.arange(peaks.shape[1])
    if len(peaks) <= count:
        places = np.broadcast_to(np.arange(len(peaks))[:, None], peaks.shape)
    else:
        # NumPy partitions along the last axis faster.
        order = np.argpartition(np.ascontiguousarray(peaks.T), -count, axis=1)
        places = order[:, -count:].T
    return products[:, places, each] + handicap[places, each], places
