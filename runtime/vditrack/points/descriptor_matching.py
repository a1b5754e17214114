"""Find a template in a feature map: cosine similarity, search radius, soft-argmax (HeFT).

The paper upsamples descriptors to every pixel first. Interpolation is linear, so a template's dot
products can be interpolated in their place, and only around the best cell: the answer is the same
and nothing larger than the feature grid is kept a descriptor.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats, Indices
from vditrack.bundle.configuration import Matching
from vditrack.coordinates import (
    Reals,
    cells_from_pixels,
    linear_weights,
    pixel_centres,
    pixel_indices,
    pixels_from_cells,
)
from vditrack.features.feature_map import FeatureMap, half_cell_weights


@dataclass(frozen=True)
class Match:
    """Where templates were found in one frame."""

    points: Floats
    """[N, 2] (x, y) in model pixels."""
    similarity: Floats
    """[N] cosine at the best pixel."""


def match(
    templates: Floats,
    target: FeatureMap,
    around: Floats,
    limited: NDArray[np.bool_],
    settings: Matching,
    radius_factor: float = 1.0,
) -> Match:
    """Find each template in a feature map.

    Args:
        templates: [N, C] of any length.
        target: the map to search.
        around: [N, 2] (x, y) in model pixels, the centre of each search.
        limited: [N] whether the search keeps within the search radius; else it is over all cells.
        settings: radii and temperature.
        radius_factor: factor on the search radius, more than 1 after dropped frames.

    """
    if not len(templates):
        return Match(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    grid = target.grid
    cells = target.descriptors.reshape(-1, templates.shape[1])
    lengths = np.linalg.norm(templates, axis=1, keepdims=True)
    dots = (templates / np.maximum(lengths, 1e-12) @ cells.T).reshape(-1, grid.rows, grid.columns)
    radius = np.where(limited, settings.search_radius * radius_factor, np.inf).astype(np.float32)
    # A circle that holds the whole map limits nothing, and its window would be larger than the map.
    radius[radius >= np.hypot(grid.width, grid.height)] = np.inf
    search = _Search(target, dots, around, radius)
    best = search.best_pixel(search.best_half_cell())
    return search.soft_argmax(best, settings.argmax_radius, settings.temperature)


def cosines(a: Floats, b: Floats) -> Floats:
    """Cosine similarities [N] of descriptors [N, C] with others, row by row."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, 1e-12), np.float32)


@dataclass(frozen=True)
class _Search:
    """One search of N templates: their dot products with every cell and where they may look."""

    target: FeatureMap
    dots: Floats
    """[N, rows, columns]"""
    around: Floats
    radius: Floats
    """[N]; inf where the whole map is searched."""

    def best_half_cell(self) -> Floats:
        """Return [N, 2] model pixels of the best among cell centres and the places between them."""
        best = np.zeros_like(self.around)
        anywhere = np.isinf(self.radius)
        if anywhere.any():
            best[anywhere] = self._best_anywhere(np.flatnonzero(anywhere))
        if not anywhere.all():
            best[~anywhere] = self._best_nearby(np.flatnonzero(~anywhere))
        return best

    def _best_anywhere(self, points: Indices) -> Floats:
        """Best half cell of the whole map."""
        grid = self.target.grid
        half_rows, half_columns = half_cell_weights(grid.rows), half_cell_weights(grid.columns)
        dots = half_rows @ self.dots[points] @ half_columns.T
        row, column = _argmax(np.asarray(dots * self.target.half_cell_inverse_norms, np.float32))
        cells = np.stack([column, row], axis=1) / 2
        return np.asarray(pixels_from_cells(cells, grid.stride), np.float32)

    def _best_nearby(self, points: Indices) -> Floats:
        """Best half cell within each point's radius."""
        grid = self.target.grid
        around, radius = self.around[points], self.radius[points]
        reach = int(np.ceil(radius.max() / grid.stride)) + 1
        rows = _nearest_cells(around[:, 1], grid.stride, grid.rows, reach)
        columns = _nearest_cells(around[:, 0], grid.stride, grid.columns, reach)
        half_rows, half_columns = _half_way(rows), _half_way(columns)
        y = pixels_from_cells(half_rows, grid.stride)
        x = pixels_from_cells(half_columns, grid.stride)
        # A half cell just outside the circle may have its best pixel inside.
        allowed = _within(y, x, around, radius + grid.stride / 4)
        allowed &= _in_range(half_rows, grid.rows)[:, :, None]
        allowed &= _in_range(half_columns, grid.columns)[:, None, :]
        cosines = self._half_cell_cosines(points, rows, columns)
        row, column = _argmax(np.where(allowed, cosines, -np.inf))
        each = np.arange(len(points))
        return np.stack([x[each, column], y[each, row]], axis=1).astype(np.float32)

    def _half_cell_cosines(self, points: Indices, rows: Indices, columns: Indices) -> Floats:
        """Cosines [n, 2 K - 1, 2 K - 1] at cells [n, K] a side and half way between them."""
        grid = self.target.grid
        inside_rows = np.clip(rows, 0, grid.rows - 1)[:, :, None]
        inside_columns = np.clip(columns, 0, grid.columns - 1)[:, None, :]
        dots = self.dots[points[:, None, None], inside_rows, inside_columns]
        dots = _half_way(_half_way(dots).transpose(0, 2, 1)).transpose(0, 2, 1)
        half_rows = np.clip(2 * rows[:, :1] + np.arange(dots.shape[1]), 0, 2 * grid.rows - 2)
        half_columns = np.clip(
            2 * columns[:, :1] + np.arange(dots.shape[2]), 0, 2 * grid.columns - 2
        )
        norms = self.target.half_cell_inverse_norms
        cosines = dots * norms[half_rows[:, :, None], half_columns[:, None, :]]
        return np.asarray(cosines, np.float32)

    def best_pixel(self, near: Floats) -> tuple[Indices, Indices]:
        """Return (row, column) [N] of the best pixel within one cell of ``near``."""
        reach = self.target.grid.stride
        offsets = np.arange(-reach, reach + 1)
        rows = pixel_indices(near[:, 1])[:, None] + offsets
        columns = pixel_indices(near[:, 0])[:, None] + offsets
        row, column = _argmax(self._pixel_cosines(rows, columns))
        each = np.arange(len(near))
        return rows[each, row], columns[each, column]

    def soft_argmax(
        self, best: tuple[Indices, Indices], radius: float, temperature: float
    ) -> Match:
        """Mean position over a disc around the best pixel, weighted by the softmax."""
        offsets = np.arange(-int(radius), int(radius) + 1)
        rows, columns = best[0][:, None] + offsets, best[1][:, None] + offsets
        cosines = self._pixel_cosines(rows, columns)
        disc = offsets[:, None] ** 2 + offsets**2 <= radius**2
        centre = len(offsets) // 2
        peak = cosines[:, centre, centre]
        weights = np.exp((cosines - peak[:, None, None]) / temperature) * disc
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        # Mean offsets, not mean coordinates: their rounding does not grow with the picture.
        shift = np.stack([weights.sum(axis=1) @ offsets, weights.sum(axis=2) @ offsets], axis=1)
        peak_pixel = np.stack([pixel_centres(best[1]), pixel_centres(best[0])], axis=1)
        return Match((peak_pixel + shift).astype(np.float32), peak.astype(np.float32))

    def _pixel_cosines(self, rows: Indices, columns: Indices) -> Floats:
        """Cosines [N, S, S] at pixels; -inf outside the map and outside the search radius."""
        grid = self.target.grid
        inside_rows = np.clip(rows, 0, grid.height - 1)
        inside_columns = np.clip(columns, 0, grid.width - 1)
        dots = _interpolate(
            self.dots,
            cells_from_pixels(pixel_centres(inside_rows), grid.stride),
            cells_from_pixels(pixel_centres(inside_columns), grid.stride),
        )
        norms = self.target.pixel_inverse_norms
        cosines = dots * norms[inside_rows[:, :, None], inside_columns[:, None, :]]
        allowed = (rows == inside_rows)[:, :, None] & (columns == inside_columns)[:, None, :]
        allowed &= _within(pixel_centres(rows), pixel_centres(columns), self.around, self.radius)
        return np.asarray(np.where(allowed, cosines, -np.inf), np.float32)


def _interpolate(values: Floats, rows: Reals, columns: Reals) -> Floats:
    """Bilinear values [N, S, S] of maps [N, R, C] at ascending cell coordinates [N, S] a side."""
    each = np.arange(len(values))[:, None, None]
    row_nodes, row_weights = linear_weights(rows, values.shape[1])
    column_nodes, column_weights = linear_weights(columns, values.shape[2])
    crop = values[each, row_nodes[:, :, None], column_nodes[:, None, :]]
    return np.asarray(row_weights @ crop @ column_weights.transpose(0, 2, 1), np.float32)


def _within(y: Reals, x: Reals, centres: Floats, radius: Floats) -> NDArray[np.bool_]:
    """Whether positions y [N, R] x x [N, K] lie within a radius of the centres: [N, R, K]."""
    dy = (y - centres[:, 1:])[:, :, None]
    dx = (x - centres[:, :1])[:, None, :]
    return np.asarray(dy**2 + dx**2 <= (radius**2)[:, None, None], np.bool_)


def _nearest_cells(centres: Floats, stride: int, count: int, reach: int) -> Indices:
    """Cells [n, 2 reach + 1] around centres along one axis of ``count`` cells, some outside it."""
    middle = np.rint(cells_from_pixels(centres, stride)).astype(np.intp)
    return np.clip(middle, 0, count - 1)[:, None] + np.arange(-reach, reach + 1)


def _half_way(values: NDArray[Any]) -> NDArray[Any]:
    """Put means between neighbours along the second axis: [n, K, ...] to [n, 2 K - 1, ...]."""
    count = values.shape[1]
    doubled = np.repeat(values, 2, axis=1)[:, : 2 * count - 1].astype(np.float32)
    doubled[:, 1::2] = (values[:, :-1] + values[:, 1:]) / 2
    return doubled


def _in_range(cells: Floats, count: int) -> NDArray[np.bool_]:
    return np.asarray((cells >= 0) & (cells <= count - 1), np.bool_)


def _argmax(values: Floats) -> tuple[Indices, Indices]:
    flat = values.reshape(len(values), -1).argmax(axis=1)
    return flat // values.shape[2], flat % values.shape[2]
