"""Conversion between pixel masks and soft labels of grid cells."""

import cv2
import numpy as np

from vditrack.arrays import Floats, Mask


def cell_labels(mask: Mask, rows: int, columns: int, labels: int) -> Floats:
    """Return the share of each cell that each label covers, float32 [rows, columns, labels].

    Shares are exact, also where a cell is not a whole number of pixels.

    Args:
        mask: Label of each pixel, uint8 [H, W], each below ``labels``; 0 is the background.
        rows: Rows of the grid over the mask.
        columns: Columns of the grid over the mask.
        labels: Number of labels, with the background.

    """
    down, across = _coverage(mask.shape[0], rows), _coverage(mask.shape[1], columns)
    shares = np.zeros((rows, columns, labels), np.float32)
    for label in np.unique(mask):
        shares[..., label] = down @ (mask == label).astype(np.float32) @ across.T
    return shares


def _coverage(pixels: int, cells: int) -> Floats:
    """Return the share of each cell that each pixel covers along one axis, [cells, pixels]."""
    edges = np.arange(cells + 1)[:, None] * pixels / cells
    first = np.arange(pixels)
    overlap = np.minimum(edges[1:], first + 1) - np.maximum(edges[:-1], first)
    return np.asarray(np.maximum(overlap, 0) * cells / pixels, np.float32)


def mask_from_labels(labels: Floats, height: int, width: int) -> Mask:
    """Return the label with the largest share at each pixel, uint8 [height, width].

    Shares are interpolated bicubically between cell centres, which keeps more of an outline than
    bilinearly, and constant beyond the outermost. Of equal shares the first label is taken, and 0
    if there is no label.

    Args:
        labels: Soft labels of the cells, float32 [rows, columns, K], the background first.
        height: Height of the mask in pixels.
        width: Width of the mask in pixels.

    """
    size = height, width
    mask, chosen = np.zeros(size, np.uint8), np.empty(size, np.uint8)
    share, largest = np.empty(size, np.float32), np.zeros(size, np.float32)
    # Labels are upsampled one at a time: all of them at frame size may take gigabytes.
    for label in np.flatnonzero(labels.any(axis=(0, 1))):
        cells = np.ascontiguousarray(labels[..., label])
        cv2.resize(cells, (width, height), dst=share, interpolation=cv2.INTER_CUBIC)
        chosen.fill(label)
        # Several times as fast as an index of pixels.
        cv2.copyTo(chosen, (share > largest).view(np.uint8), mask)
        np.maximum(largest, share, out=largest)
    return mask


def remove_label(labels: Floats, label: int) -> Floats:
    """Return labels without one, whose share goes to the background.

    Args:
        labels: Soft labels of the cells, float32 [rows, columns, K], the background first.
        label: From 1 to K - 1.

    Returns:
        Soft labels, float32 [rows, columns, K - 1], read-only.

    """
    kept = np.delete(labels, label, axis=2)
    kept[..., 0] += labels[..., label]
    kept.flags.writeable = False
    return kept
