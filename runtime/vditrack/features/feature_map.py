"""Descriptors of one frame, interpolated between the cells of their grid."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from vditrack.arrays import Floats, Indices
from vditrack.coordinates import Grid, cells_from_pixels, hat_weights, linear_weights, pixel_centres

_TINY = np.float32(1e-12)
"""Least norm, and least squared norm, that is divided by."""


@dataclass(frozen=True)
class FeatureMap:
    """Descriptors of one frame, interpolated bilinearly between cells.

    Similarity is a cosine, and the norm of an interpolated descriptor is not the interpolated norm.
    It does not depend on a template, so it is computed once a frame, without interpolating the
    descriptors themselves: the squared norm is a sum over pairs of neighbouring cells.
    """

    grid: Grid
    descriptors: Floats
    """[rows, columns, C]"""

    @cached_property
    def pixel_inverse_norms(self) -> Floats:
        """One over the norm at the centre of every model pixel, [height, width]."""
        grid = self.grid
        rows = _pixel_weights(grid.rows, grid.stride)
        columns = _pixel_weights(grid.columns, grid.stride)
        return _inverse_norms(self.descriptors, rows, columns)

    @cached_property
    def half_cell_inverse_norms(self) -> Floats:
        """The same at cell centres and half way between them, [2 rows - 1, 2 columns - 1]."""
        rows, columns = half_cell_weights(self.grid.rows), half_cell_weights(self.grid.columns)
        return _inverse_norms(self.descriptors, rows, columns)

    def sample(self, points: Floats, falloff: float) -> Floats:
        """Return the descriptors [N, C] at points, averaged over 3 x 3 places one pixel apart.

        Args:
            points: [N, 2] (x, y) in model pixels.
            falloff: places are weighted by exp(-falloff x distance); 3 in HeFT (section 3).

        """
        places = points[:, :, None] + _STENCIL
        cells = cells_from_pixels(places, self.grid.stride)
        columns, column_weights = linear_weights(cells[:, 0], self.grid.columns)
        rows, row_weights = linear_weights(cells[:, 1], self.grid.rows)
        weights = row_weights.transpose(0, 2, 1) @ _stencil_weights(falloff) @ column_weights
        around = self.descriptors[rows[:, :, None], columns[:, None, :]]
        return np.asarray(np.einsum("nij,nijc->nc", weights, around), np.float32)

    def sample_pixels(self, points: Floats, falloff: float) -> Floats:
        """Return what `sample` would from a map upsampled to pixels: [N, C].

        Descriptors at pixel centres are interpolated from the cells, and between pixel centres from
        those. The results differ from those of `sample` within a pixel of a cell's centre, where
        the map has a kink.
        """
        places = points[:, :, None] + _STENCIL - np.float32(0.5)
        columns, column_weights = _pixel_sampling(places[:, 0], self.grid.columns, self.grid.stride)
        rows, row_weights = _pixel_sampling(places[:, 1], self.grid.rows, self.grid.stride)
        weights = row_weights.transpose(0, 2, 1) @ _stencil_weights(falloff) @ column_weights
        around = self.descriptors[rows[:, :, None], columns[:, None, :]]
        return np.asarray(np.einsum("nij,nijc->nc", weights, around), np.float32)


def normalise(descriptors: Floats) -> Floats:
    """Return descriptors [rows, columns, D] of length 1; those of length 0 stay 0."""
    norms = np.linalg.norm(descriptors, axis=2, keepdims=True)
    return np.asarray(descriptors / np.maximum(norms, _TINY), np.float32)


def stretch_frames(maps: Sequence[FeatureMap], length: int) -> list[FeatureMap]:
    """Resample maps linearly in time to ``length`` frames, as HeFT's chunks are.

    Half-pixel centres: frame j reads the position (j + 0.5) n / length - 0.5 among n maps, clamped
    to the first and the last map.
    """
    count = len(maps)
    places = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    before = np.floor(places).astype(np.intp)
    after = np.minimum(before + 1, count - 1)
    return [
        _interpolate(maps[i], maps[k], float(place - i))
        for place, i, k in zip(places, before, after, strict=True)
    ]


def interpolate_frames(maps: Iterable[FeatureMap], stride: int) -> Iterator[FeatureMap]:
    """Yield the maps of all frames, given those of latents.

    Latents lie at the first frame and at every ``stride`` frames after it. Descriptors between two
    latents are linear in time (HeFT).
    """
    before: FeatureMap | None = None
    for newest in maps:
        if before is not None:
            for step in range(1, stride):
                yield _interpolate(before, newest, step / stride)
        yield newest
        before = newest


def _interpolate(before: FeatureMap, after: FeatureMap, weight: float) -> FeatureMap:
    descriptors = (1 - weight) * before.descriptors + weight * after.descriptors
    return FeatureMap(after.grid, descriptors)


_STENCIL = np.arange(-1, 2, dtype=np.float32)


@lru_cache(maxsize=16)
def _stencil_weights(falloff: float) -> Floats:
    """Return the weights [3, 3] of the places around a point, which sum to 1."""
    weights = np.exp(-falloff * np.hypot(_STENCIL[:, None], _STENCIL)).astype(np.float32)
    return np.asarray(weights / weights.sum(), np.float32)


def _pixel_sampling(places: Floats, count: int, stride: int) -> tuple[Indices, Floats]:
    """Return cells [N, M] and their weights [N, 3, M] at places between pixel centres.

    Args:
        places: [N, 3] along one axis, in units of pixels from the first pixel's centre.
        count: cells along the axis.
        stride: pixels of a cell.

    """
    pixels, pixel_weights = linear_weights(places, count * stride)
    centres = cells_from_pixels(pixel_centres(pixels), stride)
    cells, cell_weights = linear_weights(centres, count)
    return cells, np.asarray(pixel_weights @ cell_weights, np.float32)


@lru_cache(maxsize=16)
def _pixel_weights(count: int, stride: int) -> Floats:
    """Return the weights [count * stride, count] of the cells at every pixel centre of an axis."""
    centres = cells_from_pixels(pixel_centres(np.arange(count * stride)), stride)
    weights = hat_weights(np.clip(centres, 0, count - 1), np.arange(count))
    return np.asarray(weights, np.float32)


@lru_cache(maxsize=16)
def half_cell_weights(count: int) -> Floats:
    """Return the weights [2 count - 1, count] of the cells at centres and half way between."""
    return np.asarray(hat_weights(np.arange(2 * count - 1) / 2, np.arange(count)), np.float32)


def _inverse_norms(descriptors: Floats, rows: Floats, columns: Floats) -> Floats:
    """Return 1 / |sum_ij rows[y, i] columns[x, j] d_ij| for every (y, x): [Y, X].

    Each sample lies between at most two rows and two columns, so only products of neighbouring
    descriptors have weight: with itself, the next row, the next column, and both diagonals.
    """
    d = descriptors
    own_rows, own_columns = rows**2, columns**2
    pair_rows, pair_columns = 2 * rows[:, :-1] * rows[:, 1:], 2 * columns[:, :-1] * columns[:, 1:]
    diagonals = _products(d[:-1, :-1], d[1:, 1:]) + _products(d[:-1, 1:], d[1:, :-1])
    squared = own_rows @ _products(d, d) @ own_columns.T
    squared += pair_rows @ _products(d[:-1], d[1:]) @ own_columns.T
    squared += own_rows @ _products(d[:, :-1], d[:, 1:]) @ pair_columns.T
    squared += pair_rows @ (diagonals / 2) @ pair_columns.T
    return np.asarray(1 / np.sqrt(np.maximum(squared, _TINY)), np.float32)


def _products(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ijc,ijc->ij", a, b), np.float32)
