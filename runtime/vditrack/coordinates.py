"""Coordinates in frame pixels, model pixels and grid cells, and the conversions between them.

Pixels follow the raster convention of TAP-Vid: (0, 0) is the upper-left corner of the upper-left
pixel. Cell coordinates are continuous with cell centres at whole numbers, so cell (i, j) of stride
s has its centre at model pixels x = (j + 0.5) s, y = (i + 0.5) s.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Grid:
    """The feature grid over the model's input."""

    rows: int
    columns: int
    stride: int

    @property
    def height(self) -> int:
        """Height of the model's input in pixels."""
        return self.rows * self.stride

    @property
    def width(self) -> int:
        """Width of the model's input in pixels."""
        return self.columns * self.stride

    def model_from_frame(self, frame_size: tuple[int, int]) -> NDArray[np.float32]:
        """Return factors (x, y) from pixels of a frame of (height, width) to model pixels."""
        height, width = frame_size
        return np.array([self.width / width, self.height / height], np.float32)


def pixel_unit(size: tuple[int, ...]) -> float:
    """Return the pixels of a frame of (height, width) that one pixel at a width of 256 is."""
    return float(max(size) / 256)


def cells_from_pixels(pixels: Reals, stride: int) -> Reals:
    """Convert pixel coordinates to cell coordinates, along either axis."""
    return pixels / stride - 0.5


def pixels_from_cells(cells: Reals, stride: int) -> Reals:
    """Convert cell coordinates to pixel coordinates, along either axis."""
    return (cells + 0.5) * stride


def pixel_centres(indices: NDArray[np.integer[Any]]) -> Reals:
    """Return the coordinates of pixel centres, from indices along either axis."""
    return np.asarray(indices + 0.5, np.float32)


def pixel_indices(coordinates: Reals) -> NDArray[np.intp]:
    """Return the index of the pixel in which a coordinate lies, along either axis."""
    return np.floor(coordinates).astype(np.intp)


def hat_weights(cells: Reals, nodes: NDArray[np.integer[Any]]) -> Reals:
    """Return linear weights [..., S, K] at ``cells`` [..., S] from ``nodes`` [..., K]."""
    return np.maximum(0.0, 1.0 - np.abs(cells[..., :, None] - nodes[..., None, :]))


def linear_weights(cells: Reals, count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return weights that interpolate between the cells of an axis, constant beyond its ends.

    Args:
        cells: [N, S] cell coordinates, ascending along S.
        count: cells along the axis.

    Returns:
        The cells that span each row's coordinates [N, K], and their weights [N, S, K].

    """
    inside = np.clip(cells, 0, count - 1)
    first = np.floor(inside[:, 0]).astype(np.intp)
    span = int(np.ceil((inside[:, -1] - first).max(initial=0))) + 1
    nodes = first[:, None] + np.arange(span)
    # Nodes past the edge have no weight; clipping them only keeps the indices valid.
    weights = np.asarray(hat_weights(inside, nodes), np.float32)
    return np.minimum(nodes, count - 1), weights
