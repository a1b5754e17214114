"""Labels of cells carried from frame to frame by their features (TED, arXiv 2512.02339).

A cell of the newest frame takes its soft label from the cells most like it in the frames before it:
the marked ones, which are never forgotten, and the last few. Work goes tile by tile of the grid, so
that beside the frames' own features memory is bounded by `BLOCK_BYTES` whatever the grid.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.bundle import Propagation
from vditrack.grid import pixel_centres

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

BLOCK_BYTES = 16 << 20
"""Of dot products that are there at a time."""
_TILE = 8
"""Side of a tile in cells: small, since a tile is compared with all within reach of any cell."""
_GROUP = 32
_KEYPOINT_SPREAD, _KEYPOINT_REACH, _KEYPOINT_LEAST = 1.0, 2, 0.1


@dataclass
class _Context:
    """A frame whose labels are asked."""

    features: Floats
    """[rows, columns, D]"""
    labels: Floats
    """[rows, columns, K]"""


class LabelPropagation:
    """Soft labels carried through the frames of one clip or stream, in their order."""

    def __init__(self, settings: Propagation) -> None:
        """Begin before the first frame."""
        self._settings = settings
        self._marked: list[_Context] = []
        self._recent: deque[_Context] = deque(maxlen=settings.context)
        self._newest: _Context | None = None
        self._count = 0

    def advance(self, features: Floats) -> Floats:
        """Carry all labels into the next frame.

        Args:
            features: float32 [rows, columns, D], compared by their dot products as they are.

        Returns:
            float32 [rows, columns, K] shares of the labels marked so far.

        """
        if self._newest is not None:
            self._recent.append(self._newest)
        recent = [past for past in self._recent if not any(past is kept for kept in self._marked)]
        context = [past for past in (*self._marked, *recent) if past.labels.shape[2]]
        labels = np.zeros((*features.shape[:2], self._count), np.float32)
        if context:
            _carry(features, context, labels, self._settings)
        self._newest = _Context(features, labels)
        return labels

    def mark(self, labels: Floats) -> None:
        """Set the labels of the newest frame, which is kept from then on.

        Args:
            labels: float32 [rows, columns, K] shares, the background's first, of at least as many
                labels as were known. Frames before know nothing of the added ones.

        """
        assert self._newest is not None, "a frame comes before its labels"
        self._newest.labels = labels
        self._count = labels.shape[2]
        if not any(self._newest is kept for kept in self._marked):
            self._marked.append(self._newest)


def _carry(
    features: Floats, context: Sequence[_Context], labels: Floats, settings: Propagation
) -> None:
    """Fill in labels [rows, columns, K] from those of the context."""
    rows, columns = features.shape[:2]
    for tile, around in _tiles(rows, columns, settings.radius):
        asking = features[tile].reshape(-1, features.shape[2])
        too_far = _too_far(tile, around, settings.radius)
        best = np.full((len(asking), settings.top_k), -np.inf, np.float32)
        found = np.zeros((*best.shape, labels.shape[2]), np.float32)
        at_once = max(1, BLOCK_BYTES // too_far.nbytes)
        for first in range(0, len(context), at_once):
            some = context[first : first + at_once]
            best, found = _better(best, found, asking, some, around, too_far)
        weights = np.exp((best - best.max(axis=1, keepdims=True)) / settings.temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        carried = np.einsum("nk,nkl->nl", weights, found)
        labels[tile] = carried.reshape(labels[tile].shape)


Part = tuple[slice, slice]


def _tiles(rows: int, columns: int, radius: float) -> Iterator[tuple[Part, Part]]:
    """Tiles of the grid, each with the part of it that any of its cells may reach."""
    reach, side = int(radius), _TILE
    while side > 1 and 4 * side**2 * _reached(rows, side, reach) * _reached(
        columns, side, reach
    ) > (BLOCK_BYTES):
        side //= 2
    for top, left in product(range(0, rows, side), range(0, columns, side)):
        tile = slice(top, min(top + side, rows)), slice(left, min(left + side, columns))
        around = (
            slice(max(top - reach, 0), min(top + side + reach, rows)),
            slice(max(left - reach, 0), min(left + side + reach, columns)),
        )
        yield tile, around


def _reached(count: int, side: int, reach: int) -> int:
    return min(count, side + 2 * reach)


def _too_far(tile: Part, around: Part, radius: float) -> Floats:
    """What is added to dot products [cells of tile, cells around]: 0, or -inf beyond the radius."""
    down, across = (
        np.subtract.outer(np.arange(own.start, own.stop), np.arange(other.start, other.stop)) ** 2
        for own, other in zip(tile, around, strict=True)
    )
    squared = (down[:, None, :, None] + across[None, :, None, :]).reshape(
        down.shape[0] * across.shape[0], -1
    )
    return np.where(squared <= radius**2, np.float32(0), np.float32(-np.inf))


def _better(
    best: Floats,
    found: Floats,
    asking: Floats,
    context: Sequence[_Context],
    around: Part,
    too_far: Floats,
) -> tuple[Floats, Floats]:
    """Take the best of those so far and those of more frames.

    Args:
        best: [N, k] dot products so far, -inf where there are fewer.
        found: [N, k, K] labels of the cells they are with.
        asking: [N, D] features.
        context: frames.
        around: cells of theirs that are looked at.
        too_far: [N, cells].

    Returns:
        The new ``best`` and ``found``.

    """
    count, known = too_far.shape[1], best.shape[1]
    products = np.empty((len(asking), known + len(context) * count), np.float32)
    products[:, :known] = best
    for n, past in enumerate(context):
        part = products[:, known + n * count : known + (n + 1) * count]
        # Through an array of its own: BLAS writes none into a part of another.
        np.add(asking @ past.features[around].reshape(count, -1).T, too_far, out=part)
    values, places = _largest(products, known)
    labels = np.zeros((len(context), count, found.shape[2]), np.float32)
    for n, past in enumerate(context):
        own = past.labels[around]
        labels[n, :, : own.shape[2]] = own.reshape(count, -1)
    flat = labels.reshape(-1, found.shape[2])
    # An index clipped where the place is one of those so far is not looked at.
    taken = flat[np.maximum(places - known, 0)]
    kept = np.take_along_axis(found, np.minimum(places, known - 1)[..., None], axis=1)
    return values, np.where((places < known)[..., None], kept, taken)


def _largest(values: Floats, count: int) -> tuple[Floats, Indices]:
    """Find the ``count`` largest of each row [N, M], M >= count, and where they are; in any order.

    Were the maxima of groups to be sorted, that many of them would be above a bound, and so would
    at least as many values: few have to be looked at one by one.
    """
    whole = values.shape[1] // _GROUP
    candidates = np.ones(values.shape, np.bool_)
    if whole > count:
        groups = values[:, : whole * _GROUP].reshape(len(values), whole, _GROUP).max(axis=2)
        bound = np.partition(groups, -count, axis=1)[:, -count]
        candidates = values >= bound[:, None]
        # Without a bound all values are candidates; those that are none are not needed.
        few = np.isneginf(bound)
        candidates[few] = values[few] > -np.inf
        candidates[few, :count] = True
    rows, places = np.nonzero(candidates)
    chosen = values[rows, places]
    order = np.lexsort((-chosen, rows))
    rows, places, chosen = rows[order], places[order], chosen[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(values)))[rows]
    first = rank < count
    largest = np.empty((len(values), count), np.float32)
    indices = np.empty((len(values), count), np.intp)
    largest[rows[first], rank[first]] = chosen[first]
    indices[rows[first], rank[first]] = places[first]
    return largest, indices


def cell_labels(mask: NDArray[np.uint8], rows: int, columns: int, labels: int) -> Floats:
    """Share of each cell that each label of a mask covers.

    Args:
        mask: uint8 [H, W] labels from 0 to ``labels`` - 1.
        rows: of cells.
        columns: of cells.
        labels: K.

    Returns:
        float32 [rows, columns, K], adding up to 1.

    """
    shares = np.empty((rows, columns, labels), np.float32)
    for label in range(labels):
        covered = (mask == label).astype(np.float32)
        shares[..., label] = cv2.resize(covered, (columns, rows), interpolation=cv2.INTER_AREA)
    return shares


def mask_from_labels(labels: Floats, height: int, width: int) -> NDArray[np.uint8]:
    """Labels [H, W] of the largest shares [rows, columns, K] at each pixel's centre.

    Shares are interpolated bilinearly between the centres of cells; of equal ones the first wins.
    """
    best = np.full((height, width), -np.inf, np.float32)
    mask = np.zeros((height, width), np.uint8)
    for label in range(labels.shape[2]):
        # OpenCV's linear interpolation counts from the centres of pixels and of cells.
        share = cv2.resize(labels[..., label], (width, height), interpolation=cv2.INTER_LINEAR)
        mask[share > best] = label
        np.maximum(best, share, out=best)
    return mask


def keypoint_labels(points: Floats, size: tuple[int, int], rows: int, columns: int) -> Floats:
    """Labels of keypoints: a Gaussian of one cell's width around each, and the background.

    Args:
        points: float32 [N, 2] (x, y) in pixels.
        size: (height, width) of the frame.
        rows: of cells.
        columns: of cells.

    Returns:
        float32 [rows, columns, 1 + N], adding up to 1.

    """
    cells = points * (np.array([columns, rows]) / size[::-1])
    x = cells[:, 0] - pixel_centres(np.arange(columns))[:, None]
    y = cells[:, 1] - pixel_centres(np.arange(rows))[:, None]
    near = np.exp(-(x[None] ** 2 + y[:, None] ** 2) / (2 * _KEYPOINT_SPREAD**2))
    background = np.maximum(1 - near.sum(axis=2, keepdims=True), 0)
    labels = np.concatenate([background, near], axis=2, dtype=np.float32)
    return np.asarray(labels / labels.sum(axis=2, keepdims=True), np.float32)


def keypoints_from_labels(
    labels: Floats, size: tuple[int, int]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Read keypoints off their labels: the centre of mass about the largest share of each.

    Args:
        labels: float32 [rows, columns, 1 + N], the background's first.
        size: (height, width) of the frame.

    Returns:
        float32 [N, 2] (x, y) in pixels, and bool [N] whether the keypoint is there: whether its
        share is a tenth or more anywhere.

    """
    rows, columns, count = labels.shape
    points = np.zeros((count - 1, 2), np.float32)
    for n in range(count - 1):
        share = labels[..., n + 1]
        row, column = np.unravel_index(share.argmax(), share.shape)
        top, left = max(row - _KEYPOINT_REACH, 0), max(column - _KEYPOINT_REACH, 0)
        near = share[top : row + _KEYPOINT_REACH + 1, left : column + _KEYPOINT_REACH + 1]
        down, across = (pixel_centres(np.arange(length)) for length in near.shape)
        mass = max(float(near.sum()), np.finfo(np.float32).tiny)
        points[n] = left + (near @ across).sum() / mass, top + (down @ near).sum() / mass
    present = labels[..., 1:].max(axis=(0, 1)) >= _KEYPOINT_LEAST
    scale = np.array(size[::-1]) / (columns, rows)
    return np.asarray(points * scale, np.float32), np.asarray(present, np.bool_)
