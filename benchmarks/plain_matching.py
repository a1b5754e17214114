"""Label propagation tile by tile, frame by frame and label by label.

It is the plain form of `vditrack.masks.cell_matching`: the oracle of its tests, and the baseline of
its benchmark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Floats, Indices
from vditrack.bundle.configuration import Propagation
from vditrack.inference.blas_threads import limit_blas_threads
from vditrack.masks.context_frames import ContextFrame, MotionPrior

Span = tuple[int, int]
"""First index and one past the last, along one axis."""

BLOCK_BYTES = 16 << 20
"""Memory for the dot products that exist at a time, in bytes. A call needs, beside features and
labels, less than three times that, on grids of up to a million cells. It divides the work and
changes results by rounding alone."""
_TILE_SIDE = 8
"""Side in cells of the tiles that are matched together. Larger tiles compare more cells beyond the
radius; smaller ones make matrix products less efficient. It changes results by rounding alone."""


@dataclass(frozen=True)
class _Tile:
    """A rectangle of cells of the newest frame."""

    rows: Span
    columns: Span

    @property
    def place(self) -> tuple[slice, slice]:
        """The index of the tile in an array [rows, columns, ...]."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def cells(self) -> Floats:
        """Coordinates of its n cells, float32 [n, 2] (x, y)."""
        across, down = np.meshgrid(np.arange(*self.columns), np.arange(*self.rows))
        return np.stack([across, down], axis=2).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True)
class _Window:
    """The cells of context frames that are compared with n cells of a tile."""

    rows: Span
    columns: Span
    squares: Floats
    """Squared distances of the window's cells from each of the n cells, float32 [places, n]."""

    @property
    def place(self) -> tuple[slice, slice]:
        """The index of the window in an array [rows, columns, ...]."""
        return slice(*self.rows), slice(*self.columns)


@dataclass(frozen=True)
class _Neighbours:
    """Up to c neighbours in context frames for each of n cells."""

    products: Floats
    """Dot products of features, float32 [c, n]; -inf beyond the radius."""
    frames: Indices
    """Indices into the context, intp [c, n]."""
    cells: Indices
    """Row-major indices of cells, intp [c, n]."""

    def merge(self, others: "_Neighbours") -> "_Neighbours":
        """Return these neighbours and others together."""
        return _Neighbours(
            np.concatenate([self.products, others.products]),
            np.concatenate([self.frames, others.frames]),
            np.concatenate([self.cells, others.cells]),
        )

    def top_k(self, count: int) -> "_Neighbours":
        """Return the ``count`` neighbours of each cell with the largest products, unsorted."""
        chosen, each = _largest(self.products, count), np.arange(self.products.shape[1])
        return _Neighbours(
            self.products[chosen, each], self.frames[chosen, each], self.cells[chosen, each]
        )


def propagate_labels(
    features: Floats,
    context: Sequence[ContextFrame],
    settings: Propagation,
    prior: MotionPrior,
    _threads: int | None = None,
) -> Floats:
    """Return the soft labels of a frame, float32 [rows, columns, K], in one thread.

    Each cell gets the mean of the labels of its ``top_k`` nearest neighbours in all context frames
    together, weighted by the softmax of dot products. A cell without neighbours is background.

    Args:
        features: Features of the frame, float32 [rows, columns, D].
        context: Frames with labels.
        settings: Settings of label propagation.
        prior: Where objects are expected.

    """
    rows, columns = features.shape[:2]
    count = max((frame.labels.shape[2] for frame in context), default=0)
    labels = np.zeros((rows, columns, count), np.float32)
    if not context:
        return labels
    with limit_blas_threads():
        for tile in _tiles(rows, columns, settings.radius):
            nearest = _nearest_neighbours(features, context, tile, settings, prior)
            means = _mean_labels(nearest, context, count, settings.temperature)
            block = labels[tile.place]
            block[:] = means.reshape(block.shape)
    return labels


def _tiles(rows: int, columns: int, radius: float) -> Iterator[_Tile]:
    reach = int(min(radius, max(rows, columns)))
    side = _TILE_SIDE
    # The products with one frame must fit, with room for what is computed from them.
    while side > 1 and 4 * side**2 * _window_size(side, reach, rows, columns) > BLOCK_BYTES // 4:
        side //= 2
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield _Tile(_clip_span(top, top + side, rows), _clip_span(left, left + side, columns))


def _window_size(side: int, reach: int, rows: int, columns: int) -> int:
    return min(side + 2 * reach, rows) * min(side + 2 * reach, columns)


def _clip_span(first: int, end: int, count: int) -> Span:
    """Clip a span to an axis of ``count`` cells; a span outside becomes empty."""
    return min(max(first, 0), count), min(max(end, 0), count)


def _window_around(centres: Floats, radius: float, grid: tuple[int, int]) -> _Window:
    """Return the window of a grid (rows, columns) that holds all cells within a radius.

    Args:
        centres: Coordinates [n, 2] (x, y) from which the radius is measured.
        radius: Radius in cells.
        grid: Rows and columns of the grid.

    """
    reach = min(radius, max(grid))
    (left, top), (right, bottom) = centres.min(axis=0) - reach, centres.max(axis=0) + reach
    rows = _clip_span(int(np.ceil(top)), int(bottom) + 1, grid[0])
    columns = _clip_span(int(np.ceil(left)), int(right) + 1, grid[1])
    down = np.subtract.outer(np.arange(*rows), centres[:, 1])
    across = np.subtract.outer(np.arange(*columns), centres[:, 0])
    squares = ((down**2)[:, None] + (across**2)[None]).reshape(-1, len(centres))
    return _Window(rows, columns, squares.astype(np.float32))


def _nearest_neighbours(
    features: Floats,
    context: Sequence[ContextFrame],
    tile: _Tile,
    settings: Propagation,
    prior: MotionPrior,
) -> _Neighbours:
    """Return the top-k neighbours of each cell of a tile, over all context frames."""
    block = features[tile.place]
    # Matrix products are 1.5 times as fast with a contiguous matrix on the right.
    cells = np.ascontiguousarray(block.reshape(-1, features.shape[2]).T)
    empty = np.zeros((0, cells.shape[1]))
    nearest = _Neighbours(empty.astype(np.float32), empty.astype(np.intp), empty.astype(np.intp))
    for neighbours in _neighbours_by_label(cells, context, tile, prior):
        nearest = nearest.merge(neighbours).top_k(settings.top_k)
    return nearest


def _neighbours_by_label(
    cells: Floats, context: Sequence[ContextFrame], tile: _Tile, prior: MotionPrior
) -> Iterator[_Neighbours]:
    """Yield, for each context frame and label, its cells near their predicted place."""
    places, velocity = tile.cells, prior.velocity[tile.place].reshape(-1, 2)
    for index, frame in enumerate(context):
        for label in np.unique(frame.owners).tolist():
            centres = places - prior.translation_since(frame, label)
            radius, search_radius = prior.radius(frame), prior.search_radius(frame, label)
            window = _window_around(centres, search_radius, frame.owners.shape)
            owned = np.zeros(frame.owners.shape, np.bool_)
            owned[window.place] = frame.owners[window.place] == label
            if not owned.any():
                continue
            squares = window.squares[owned[window.place].ravel()]
            products = frame.features[owned] @ cells
            products += _motion_affinity(prior, velocity, frame, label, owned)
            products -= np.float32(prior.falloff / radius**2) * squares
            products[squares > radius**2] -= prior.displacement.uncovered
            products[squares > search_radius**2] = -np.inf
            indices = np.flatnonzero(owned)[:, None]
            frames = np.full(products.shape, index, np.intp)
            yield _Neighbours(products, frames, np.broadcast_to(indices, products.shape))


def _motion_affinity(
    prior: MotionPrior, cells: Floats, frame: ContextFrame, label: int, owned: Bools
) -> Floats:
    """Return the motion affinity, which is added to the dot products of features.

    It is λ² exp(-d² / (2 spread²)), where d is the difference between the velocity of a new
    cell and the one expected from a cell of the context frame.

    Args:
        prior: The motion prior.
        cells: Velocities of n cells of the newest frame, float32 [n, 2] (x, y).
        frame: A context frame.
        label: The label of the context frame's cells.
        owned: Which m cells of the context frame are compared, bool [rows, columns].

    Returns:
        Affinities, float32 [m, n], or [1, n] if they are equal for all m cells.

    """
    expected = prior.objects.velocity[label][None]
    if frame.velocity is not None:
        relative = frame.velocity[owned] - frame.motion.velocity[label]
        expected = expected + np.float32(prior.displacement.deviation) * relative
    squares = np.square(expected[:, None] - cells).sum(axis=2)
    spread = prior.displacement.spread
    affinity = prior.settings.motion_weight**2 * np.exp(squares / (-2 * spread**2))
    return np.asarray(affinity, np.float32)


def _largest(values: Floats, count: int) -> Indices:
    """Return indices [count, n] of the largest values [m, n] of each column; all if m < count."""
    if len(values) <= count:
        return np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    # NumPy partitions along the last axis faster.
    order = np.argpartition(np.ascontiguousarray(values.T), -count, axis=1)
    return order[:, -count:].T


def _mean_labels(
    nearest: _Neighbours, context: Sequence[ContextFrame], count: int, temperature: float
) -> Floats:
    """Return the mean labels [n, count] of neighbours, weighted by the softmax of products.

    A cell without neighbours is background: what it shows was just uncovered.
    """
    products = nearest.products
    largest = products.max(axis=0, initial=-np.inf)
    uncovered = np.isneginf(largest)
    weights = np.exp((products - np.where(uncovered, 0, largest)) / np.float32(temperature))
    weights /= np.where(uncovered, 1, weights.sum(axis=0))
    labels = np.zeros((*products.shape, count), np.float32)
    for index in np.unique(nearest.frames):
        chosen, known = nearest.frames == index, context[index].labels
        labels[chosen, : known.shape[2]] = known.reshape(-1, known.shape[2])[nearest.cells[chosen]]
    means = np.asarray(np.einsum("cn,cnk->nk", weights, labels), np.float32)
    means[uncovered, 0] = 1
    return means
