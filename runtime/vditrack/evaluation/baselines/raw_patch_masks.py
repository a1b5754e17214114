"""Masks carried by the likeness of raw pixels: what propagation is worth without a model."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats
from vditrack.bundle.configuration import Propagation
from vditrack.masks.objects import MaskedObjects

Image = NDArray[np.uint8]

STRIDE = 8
"""Side of a cell, in pixels of the frame."""
TALLEST = 480
"""Rows to which a frame is reduced that has more, in pixels."""
SETTINGS = Propagation(motion_weight=0.0, temperature=0.05, top_k=10, radius=15.0, context=28)
"""TED's (arXiv 2512.02339), which does not print the context. Its temperature is for features of a
model; of the pixels' 0.02, 0.05, 0.1 and 0.2 this one was the best on synthetic:1."""

_CELL, _PATCH = 4, 8
"""Sides in pixels of a picture of half the size, which tells as much of a patch and costs less."""


def propagate_patches(frames: Image, first: Image) -> Image:
    """Carry the objects of the first frame, as with fused features, but with raw pixels.

    Args:
        frames: [T, H, W, 3] RGB.
        first: [H, W] of object indices.

    Returns:
        [T, H, W]

    """
    objects, masks = MaskedObjects(SETTINGS), [first]
    objects.advance(patch_features(frames[0]), first.shape)
    objects.add_masks(first)
    for frame in frames[1:]:
        objects.advance(patch_features(frame), first.shape)
        masks.append(objects.mask)
    return np.stack(masks)


def patch_features(frame: Image) -> Floats:
    """Features [rows, columns, 192] of a frame [H, W, 3], each of length 1.

    That of a cell are the colours of the 16 x 16 pixels about its centre, two by two, as they
    differ from grey.
    """
    height, width = frame.shape[:2]
    scale = min(TALLEST / height, 1)
    rows, columns = (max(round(side * scale / STRIDE), 1) for side in (height, width))
    size = columns * _CELL, rows * _CELL
    halved = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32) - 127.5
    margin = (_PATCH - _CELL) // 2
    padded = np.pad(halved, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_PATCH, _PATCH), axis=(0, 1))
    patches = windows[::_CELL, ::_CELL].reshape(rows, columns, -1)
    norms = np.linalg.norm(patches, axis=2, keepdims=True)
    return np.asarray(patches / np.maximum(norms, 1), np.float32)
