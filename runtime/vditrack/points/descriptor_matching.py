"""Search for templates in a feature map: cosine similarity, search radius, soft-argmax (HeFT).

HeFT (arXiv 2512.04619, section 3) upsamples descriptors to every pixel first. Interpolation is
linear, so a template's dot products with the cells can be interpolated instead, where they are
needed: the answer is the same, and no array is larger than the feature grid times the templates.
The fast search looks for the best pixel around the best half cell alone. The exhaustive search
looks at every pixel within the radius, as the paper does, for the reference mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Indices
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

_MIN_LENGTH = 1e-12
"""Length of a descriptor below which it is not divided by its length."""
_BLOCK = 256
"""Templates that the exhaustive search handles at a time; bounds its memory."""


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
    limited: Bools,
    settings: Matching,
    radius_factor: float | Floats = 1.0,
) -> Match:
    """Search for each template in a feature map, around its best half cell.

    Args:
        templates: [N, C] of any length.
        target: the map to search.
        around: [N, 2] (x, y) in model pixels, the centre of each search.
        limited: [N] whether the search is limited to the search radius; else it covers the map.
        settings: radii and temperature.
        radius_factor: factor on the search radius, of each search [N] or of all; more than 1 after
            dropped frames.

    """
    if not len(templates):
        return _empty_match()
    radius = _radii(limited, settings.search_radius * radius_factor)
    # A circle that holds the whole map limits nothing, and its window would be larger than the map.
    radius[radius >= np.hypot(target.grid.width, target.grid.height)] = np.inf
    search = _Search(target, _dot_products(templates, target), around, radius)
    best = search.best_pixel_near(search.best_half_cell())
    return search.soft_argmax(best, settings)


def match_exhaustively(
    templates: Floats, target: FeatureMap, around: Floats, limited: Bools, settings: Matching
) -> Match:
    """Search for each template in a feature map, at every pixel within the radius.

    The arguments are those of `match`.
    """
    found = _empty_match(len(templates))
    dots, radius = _dot_products(templates, target), _radii(limited, settings.search_radius)
    for rows in _blocks(np.isinf(radius)):
        search = _Search(target, dots[rows], around[rows], radius[rows])
        block = search.soft_argmax(search.best_pixel(), settings)
        found.points[rows], found.similarity[rows] = block.points, block.similarity
    return found


def match_elsewhere(templates: Floats, target: FeatureMap, around: Floats, radius: float) -> Match:
    """Return the cell that matches each template best outside a circle.

    Args:
        templates: [N, C] of any length.
        target: the map to search.
        around: [N, 2] (x, y) in model pixels, the centre of each circle.
        radius: of the circles, in model pixels.

    """
    if not len(templates):
        return _empty_match()
    grid = target.grid
    norms = target.half_cell_inverse_norms[::2, ::2]
    similarities = _dot_products(templates, target) * norms
    y = pixels_from_cells(np.arange(grid.rows, dtype=np.float32)[None], grid.stride)
    x = pixels_from_cells(np.arange(grid.columns, dtype=np.float32)[None], grid.stride)
    within = _within(y, x, around, np.full(len(templates), radius, np.float32))
    similarities = np.where(within, np.float32(-1), similarities)
    row, column = _argmax(similarities)
    cells = np.stack([column, row], axis=1).astype(np.float32)
    points = pixels_from_cells(cells, grid.stride)
    peak = similarities[np.arange(len(templates)), row, column]
    return Match(np.asarray(points, np.float32), np.asarray(peak, np.float32))


@dataclass(frozen=True)
class Comparison:
    """N templates, compared with all cells of one frame."""

    best: Floats
    """[N, 2] (x, y) in model pixels of the cell that each template matches best."""
    similarity: Floats
    """[N] cosine there."""
    margin: Floats
    """[N] by how much that exceeds the largest cosine elsewhere."""
    rival: Floats
    """[N] largest cosine elsewhere than at the templates' points."""
    dots: Floats
    """[N, rows, columns] dot products of the templates with every cell."""


def compare_with_all(
    templates: Floats, target: FeatureMap, points: Floats, apart: float
) -> Comparison:
    """Compare templates with all cells of a frame.

    Args:
        templates: [N, C] of any length; N is at least 1.
        target: the map of the frame.
        points: [N, 2] (x, y) in model pixels, where the templates' points are.
        apart: distance in model pixels from which on a cell is elsewhere.

    """
    grid, count = target.grid, len(templates)
    dots = _dot_products(templates, target)
    similarities = dots * target.half_cell_inverse_norms[::2, ::2]
    y = pixels_from_cells(np.arange(grid.rows, dtype=np.float32), grid.stride)[None]
    x = pixels_from_cells(np.arange(grid.columns, dtype=np.float32), grid.stride)[None]
    row, column = _argmax(similarities)
    best = np.stack([x[0, column], y[0, row]], axis=1).astype(np.float32)
    highest = similarities[np.arange(count), row, column]
    radius = np.full(count, apart, np.float32)
    beside_best, beside_points = (
        np.where(_within(y, x, places, radius), np.float32(-1), similarities).max(axis=(1, 2))
        for places in (best, points)
    )
    return Comparison(best, highest, highest - beside_best, beside_points, dots)


def refine_best(found: Comparison, rows: Indices, target: FeatureMap, settings: Matching) -> Match:
    """Return the best matches of the templates in the given rows, between cells."""
    around = found.best[rows]
    search = _Search(target, found.dots[rows], around, np.full(len(rows), np.inf, np.float32))
    return search.soft_argmax(search.best_pixel_near(around), settings)


def cosines(a: Floats, b: Floats) -> Floats:
    """Return the cosine similarities [N] of descriptors [N, C] with others, row by row."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, _MIN_LENGTH), np.float32)


def _empty_match(count: int = 0) -> Match:
    return Match(np.zeros((count, 2), np.float32), np.zeros(count, np.float32))


def _dot_products(templates: Floats, target: FeatureMap) -> Floats:
    """Return the dot products [N, rows, columns] of templates of length 1 with every cell."""
    grid = target.grid
    cells = target.descriptors.reshape(-1, templates.shape[1])
    lengths = np.linalg.norm(templates, axis=1, keepdims=True)
    unit = templates / np.maximum(lengths, _MIN_LENGTH)
    dots = (unit @ cells.T).reshape(-1, grid.rows, grid.columns)
    return np.asarray(dots, np.float32)


def _radii(limited: Bools, radius: float | Floats) -> Floats:
    """Return the radius [N] of each search; inf where it is not limited."""
    return np.where(limited, radius, np.inf).astype(np.float32)


def _blocks(unlimited: Bools) -> Iterator[Indices]:
    """Yield rows that are searched together: a block of limited ones, or one that is not."""
    limited = np.flatnonzero(~unlimited)
    yield from filter(len, np.array_split(limited, len(limited) // _BLOCK + 1))
    # A search without a limit covers the whole map, so that one alone is large.
    yield from np.flatnonzero(unlimited)[:, None]


@dataclass(frozen=True)
class _Search:
    """One search for N templates in a map."""

    target: FeatureMap
    dots: Floats
    """[N, rows, columns] dot products of the templates with every cell."""
    around: Floats
    """[N, 2] (x, y) in model pixels, the centre of each search."""
    radius: Floats
    """[N] in model pixels; inf where the whole map is searched."""

    def best_half_cell(self) -> Floats:
        """Return the best of cell centres and the positions half way between: [N, 2]."""
        best = np.zeros_like(self.around)
        unlimited = np.isinf(self.radius)
        if unlimited.any():
            best[unlimited] = self._best_half_cell_anywhere(np.flatnonzero(unlimited))
        if not unlimited.all():
            best[~unlimited] = self._best_half_cell_within_radius(np.flatnonzero(~unlimited))
        return best

    def _best_half_cell_anywhere(self, points: Indices) -> Floats:
        grid = self.target.grid
        half_rows, half_columns = half_cell_weights(grid.rows), half_cell_weights(grid.columns)
        dots = half_rows @ self.dots[points] @ half_columns.T
        row, column = _argmax(np.asarray(dots * self.target.half_cell_inverse_norms, np.float32))
        cells = np.stack([column, row], axis=1) / 2
        return np.asarray(pixels_from_cells(cells, grid.stride), np.float32)

    def _best_half_cell_within_radius(self, points: Indices) -> Floats:
        grid = self.target.grid
        around, radius = self.around[points], self.radius[points]
        steps = int(np.ceil(radius.max() / grid.stride)) + 1
        rows = _nearest_cells(around[:, 1], grid.stride, grid.rows, steps)
        columns = _nearest_cells(around[:, 0], grid.stride, grid.columns, steps)
        half_rows, half_columns = _insert_midpoints(rows), _insert_midpoints(columns)
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
        """Return cosines [n, 2 K - 1, 2 K - 1] at cells [n, K] a side and half way between them."""
        grid = self.target.grid
        inside_rows = np.clip(rows, 0, grid.rows - 1)[:, :, None]
        inside_columns = np.clip(columns, 0, grid.columns - 1)[:, None, :]
        dots = self.dots[points[:, None, None], inside_rows, inside_columns]
        dots = _insert_midpoints(_insert_midpoints(dots).transpose(0, 2, 1)).transpose(0, 2, 1)
        half_rows = np.clip(2 * rows[:, :1] + np.arange(dots.shape[1]), 0, 2 * grid.rows - 2)
        half_columns = np.clip(
            2 * columns[:, :1] + np.arange(dots.shape[2]), 0, 2 * grid.columns - 2
        )
        norms = self.target.half_cell_inverse_norms
        cosines = dots * norms[half_rows[:, :, None], half_columns[:, None, :]]
        return np.asarray(cosines, np.float32)

    def best_pixel_near(self, position: Floats) -> tuple[Indices, Indices]:
        """Return the row and column [N] of the best pixel within one cell of a position [N, 2]."""
        offsets = np.arange(-self.target.grid.stride, self.target.grid.stride + 1)
        rows = pixel_indices(position[:, 1])[:, None] + offsets
        columns = pixel_indices(position[:, 0])[:, None] + offsets
        return self._best_of(rows, columns)

    def best_pixel(self) -> tuple[Indices, Indices]:
        """Return the row and column [N] of the best pixel within the radii, all finite or all inf.

        Without a limit N is 1.
        """
        grid, radius = self.target.grid, self.radius.max()
        if np.isinf(radius):
            return self._best_of(np.arange(grid.height)[None], np.arange(grid.width)[None])
        # No pixel of the map is further from a point in it than the map is long.
        steps = min(int(radius) + 1, max(grid.height, grid.width))
        offsets = np.arange(-steps, steps + 1)
        rows = pixel_indices(self.around[:, 1:]) + offsets
        columns = pixel_indices(self.around[:, :1]) + offsets
        return self._best_of(rows, columns)

    def soft_argmax(self, best: tuple[Indices, Indices], settings: Matching) -> Match:
        """Return the mean position over a disc around the best pixel, weighted by the softmax."""
        radius = settings.argmax_radius
        offsets = np.arange(-int(radius), int(radius) + 1)
        rows, columns = best[0][:, None] + offsets, best[1][:, None] + offsets
        cosines = self._pixel_cosines(rows, columns)
        disc = offsets[:, None] ** 2 + offsets**2 <= radius**2
        centre = len(offsets) // 2
        peak = cosines[:, centre, centre]
        weights = np.exp((cosines - peak[:, None, None]) / settings.temperature) * disc
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        # Mean offsets, not mean coordinates: their rounding does not grow with the picture.
        shift = np.stack([weights.sum(axis=1) @ offsets, weights.sum(axis=2) @ offsets], axis=1)
        peak_pixel = np.stack([pixel_centres(best[1]), pixel_centres(best[0])], axis=1)
        return Match((peak_pixel + shift).astype(np.float32), peak.astype(np.float32))

    def _best_of(self, rows: Indices, columns: Indices) -> tuple[Indices, Indices]:
        """Return the row and column [N] of the best among pixels [N, R] x [N, K]."""
        row, column = _argmax(self._pixel_cosines(rows, columns))
        each = np.arange(len(rows))
        return rows[each, row], columns[each, column]

    def _pixel_cosines(self, rows: Indices, columns: Indices) -> Floats:
        """Return cosines [N, R, K] at pixels; -inf outside the map and the search radius."""
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
    """Interpolate maps [N, r, c] bilinearly at ascending cell coordinates [N, R] x [N, K]."""
    each = np.arange(len(values))[:, None, None]
    row_nodes, row_weights = linear_weights(rows, values.shape[1])
    column_nodes, column_weights = linear_weights(columns, values.shape[2])
    crop = values[each, row_nodes[:, :, None], column_nodes[:, None, :]]
    return np.asarray(row_weights @ crop @ column_weights.transpose(0, 2, 1), np.float32)


def _within(y: Reals, x: Reals, centres: Floats, radius: Floats) -> Bools:
    """Return which positions y [N, R] x x [N, K] lie within a radius of the centres: [N, R, K]."""
    dy = (y - centres[:, 1:])[:, :, None]
    dx = (x - centres[:, :1])[:, None, :]
    return np.asarray(dy**2 + dx**2 <= (radius**2)[:, None, None], np.bool_)


def _nearest_cells(centres: Floats, stride: int, count: int, steps: int) -> Indices:
    """Return cells [n, 2 steps + 1] around centres along one axis of ``count`` cells.

    Some of them may be outside the axis.
    """
    middle = np.rint(cells_from_pixels(centres, stride)).astype(np.intp)
    return np.clip(middle, 0, count - 1)[:, None] + np.arange(-steps, steps + 1)


def _insert_midpoints(values: NDArray[Any]) -> NDArray[Any]:
    """Insert means between neighbours along the second axis: [n, K, ...] to [n, 2 K - 1, ...]."""
    count = values.shape[1]
    doubled = np.repeat(values, 2, axis=1)[:, : 2 * count - 1].astype(np.float32)
    doubled[:, 1::2] = (values[:, :-1] + values[:, 1:]) / 2
    return doubled


def _in_range(cells: Floats, count: int) -> Bools:
    return np.asarray((cells >= 0) & (cells <= count - 1), np.bool_)


def _argmax(values: Floats) -> tuple[Indices, Indices]:
    """Return the row and column [n] of the largest of values [n, R, K]."""
    flat = values.reshape(len(values), -1).argmax(axis=1)
    return flat // values.shape[2], flat % values.shape[2]
