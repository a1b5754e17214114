"""Conversion between masks of pixels and soft labels of grid cells."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats, Indices, Mask

_SIGMA = 1.0
"""Of a keypoint's Gaussian, in cells: the narrowest that cells still sample well."""


_REACH = 3
"""Cells around the peak, along each axis, from which a keypoint is read: three sigma."""


_LEAST_SHARE = 0.5
"""Of a keypoint's Gaussian that has to be left for it to be there."""


def cell_labels(mask: Mask, rows: int, columns: int, labels: int) -> Floats:
    """Soft labels of cells from a mask.

    Args:
        mask: uint8 [H, W] of labels, each below ``labels``; 0 is the background.
        rows: of cells over the mask.
        columns: of cells.
        labels: how many there are, with the background.

    Returns:
        [rows, columns, labels]: what share of each cell each label covers, exactly, also where
        cells are no whole number of pixels.

    """
    down, across = _coverage(mask.shape[0], rows), _coverage(mask.shape[1], columns)
    shares = np.zeros((rows, columns, labels), np.float32)
    for label in np.unique(mask):
        shares[..., label] = down @ (mask == label).astype(np.float32) @ across.T
    return shares


def _coverage(pixels: int, cells: int) -> Floats:
    """Share [cells, pixels] of each cell that each pixel covers, along one axis."""
    edges = np.arange(cells + 1)[:, None] * pixels / cells
    first = np.arange(pixels)
    overlap = np.minimum(edges[1:], first + 1) - np.maximum(edges[:-1], first)
    return np.asarray(np.maximum(overlap, 0) * cells / pixels, np.float32)


def mask_from_labels(labels: Floats, height: int, width: int) -> Mask:
    """Read a mask from soft labels of cells.

    Args:
        labels: [rows, columns, K], the background first.
        height: of the mask.
        width: of the mask.

    Returns:
        uint8 [height, width]: the largest label at each pixel's centre, between cell centres
        bilinear and constant beyond the outermost; the first of equal ones, and 0 if K is 0.

    """
    mask = np.zeros((height, width), np.uint8)
    largest = np.zeros((height, width), np.float32)
    # One label at a time: all of them at the size of the frame may be gigabytes.
    for label in np.flatnonzero(labels.any(axis=(0, 1))):
        cells = np.ascontiguousarray(labels[..., label])
        share = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
        mask[share > largest] = label
        np.maximum(largest, share, out=largest)
    return mask


def keypoint_labels(points: Floats, size: tuple[int, int], rows: int, columns: int) -> Floats:
    """Soft labels of cells from points, a label each.

    Args:
        points: [N, 2] (x, y) in pixels of the frame.
        size: (height, width) of the frame.
        rows: of cells over the frame.
        columns: of cells.

    Returns:
        [rows, columns, 1 + N], which sum to 1: the background, and of each point a Gaussian with a
        sigma of one cell and a peak of 1. Where points are so close that theirs would sum to more
        than 1, they share the cell in proportion.

    """
    x = points[:, 0] * np.float32(columns / size[1]) - 0.5
    y = points[:, 1] * np.float32(rows / size[0]) - 0.5
    down = np.exp(-((np.arange(rows)[:, None] - y) ** 2) / (2 * _SIGMA**2))
    across = np.exp(-((np.arange(columns)[:, None] - x) ** 2) / (2 * _SIGMA**2))
    peaks = down[:, None] * across
    total = peaks.sum(axis=2, keepdims=True)
    labels = np.concatenate([1 - np.minimum(total, 1), peaks / np.maximum(total, 1)], axis=2)
    return labels.astype(np.float32)


def keypoints_from_labels(
    labels: Floats, size: tuple[int, int]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Read points from soft labels of cells.

    Args:
        labels: [rows, columns, 1 + N], the background first.
        size: (height, width) of the frame.

    Returns:
        [N, 2] (x, y) in pixels of the frame, and [N] whether the point is still there.

        A point is the mean of cell centres, weighted by its label, up to three cells from the cell
        where that is largest. Near the edge of the grid it is a mean over fewer cells, as many on
        either side, so that a point beyond the outermost cell centres is found on them. It is there
        while these cells hold at least half of what `keypoint_labels` puts in them: a label that is
        carried on blurs, which lowers its peak but not its sum. The place of a point that is not
        there means nothing.

    """
    shares = labels[..., 1:]
    rows, columns, count = shares.shape
    peak_rows, peak_columns = np.divmod(shares.reshape(-1, count).argmax(axis=0), columns)
    down = _offsets(peak_rows, rows)
    across = _offsets(peak_columns, columns)
    within = np.isfinite(down)[:, None] & np.isfinite(across)
    near = shares * within
    total = near.sum(axis=(0, 1))
    mass = np.maximum(total, np.finfo(np.float32).tiny)
    y = peak_rows + (near.sum(axis=1) * np.nan_to_num(down)).sum(axis=0) / mass
    x = peak_columns + (near.sum(axis=0) * np.nan_to_num(across)).sum(axis=0) / mass
    places = np.stack([(x + 0.5) * size[1] / columns, (y + 0.5) * size[0] / rows], axis=1)
    points = places.astype(np.float32)
    whole = (keypoint_labels(points, size, rows, columns)[..., 1:] * within).sum(axis=(0, 1))
    return points, np.asarray(total >= _LEAST_SHARE * whole, np.bool_)


def _offsets(peaks: Indices, count: int) -> Floats:
    """Offsets [count, N] of cells from peaks along one axis; NaN where they are not asked."""
    reach = np.minimum(_REACH, np.minimum(peaks, count - 1 - peaks))
    offsets = (np.arange(count)[:, None] - peaks).astype(np.float32)
    return np.where(np.abs(offsets) <= reach, offsets, np.float32(np.nan))
