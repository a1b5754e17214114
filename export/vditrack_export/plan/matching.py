"""The cost of matching points in a new frame, and of the check backward (`vditrack.points`).

Products of matrices count twice their multiply-adds, and the means of neighbouring cells two
operations each. All of it runs in FP32 on the CPU.
"""

from itertools import product
from math import ceil

from vditrack.bundle.configuration import Matching
from vditrack.coordinates import Grid
from vditrack_export.plan.costs import Cost

# Side of the square of pixels that a descriptor is averaged over.
_STENCIL = 3


def matching_cost(grid: Grid, channels: int, points: int, settings: Matching) -> Cost:
    """Return the cost of one new frame, for points that are visible and older than the horizon.

    Points are matched once forward and once in every frame of the horizon backward. The norms of a
    map are computed once, when its frame is new. The peak counts the maps that are kept. With flow
    tracking, descriptors are only read where the points are; optical flow is not counted.

    Args:
        grid: Cells of a map of descriptors.
        channels: Of a descriptor.
        points: Number of points.
        settings: Of the matching.

    """
    cells = grid.rows * grid.columns
    pixels = grid.height * grid.width
    if settings.flow_tracking is not None:
        operations = points * _sample(grid, channels)
        return _fp32_cost(operations, moved=cells * channels, peak=cells * channels)
    matches = 1 + settings.horizon
    norms = sum(
        _norms(grid, channels, height, width)
        for height, width in (
            (grid.height, grid.width),
            (2 * grid.rows - 1, 2 * grid.columns - 1),
        )
    )
    read = matches * (cells * channels + points * cells) + cells * channels + pixels
    return _fp32_cost(
        norms
        + matches * points * _match(grid, channels, settings)
        + 2 * points * _sample(grid, channels),  # to match backward, and to update the template
        moved=read,
        peak=matches * (cells * channels + pixels) + points * cells,
    )


def _fp32_cost(operations: int, moved: int, peak: int) -> Cost:
    """Return a cost of so many operations, and of so many numbers moved and kept."""
    return Cost(
        fp16=0,
        bf16=0,
        fp32=operations,
        weight_bytes=0,
        moved_bytes=4 * moved,
        peak_bytes=4 * peak,
        input_bytes=0,
        output_bytes=0,
    )


def _norms(grid: Grid, channels: int, height: int, width: int) -> int:
    """Count the norms at ``height`` x ``width`` places, from products of neighbouring cells."""
    total = 0
    for rows, columns in product((grid.rows, grid.rows - 1), (grid.columns, grid.columns - 1)):
        diagonals = 2 if rows < grid.rows and columns < grid.columns else 1
        total += diagonals * 2 * rows * columns * channels
        total += 2 * height * rows * columns + 2 * height * columns * width
    return total


def _match(grid: Grid, channels: int, settings: Matching) -> int:
    """Count the match of one template in one map, within the search radius."""
    dots = 2 * grid.rows * grid.columns * channels
    side = 2 * (ceil(settings.search_radius / grid.stride) + 1) + 1
    means = (side - 1) * side + (2 * side - 1) * (side - 1)
    best = _interpolation(grid, 2 * grid.stride + 1)
    disc = 2 * int(settings.argmax_radius) + 1
    return dots + 2 * means + best + _interpolation(grid, disc) + 4 * disc


def _sample(grid: Grid, channels: int) -> int:
    nodes = _nodes(grid, _STENCIL)
    weights = 2 * nodes * _STENCIL * _STENCIL + 2 * nodes * _STENCIL * nodes
    return weights + 2 * nodes * nodes * channels


def _interpolation(grid: Grid, side: int) -> int:
    """Count the bilinear interpolation of a square of pixels."""
    nodes = _nodes(grid, side)
    return 2 * side * nodes * nodes + 2 * side * nodes * side


def _nodes(grid: Grid, side: int) -> int:
    """Return how many cells along one axis may be neighbours of so many pixels in a row."""
    return ceil((side - 1) / grid.stride) + 2
