"""A baseline for masks: label propagation with raw pixels in the place of a model's features."""

from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np

from vditrack.arrays import Floats, Image, ImageSequence
from vditrack.bundle.configuration import Propagation
from vditrack.masks.objects import MaskedObjects

STRIDE = 8
"""Side of a cell, in pixels of the frame at most `TALLEST` rows high."""
TALLEST = 480
"""Largest height in pixels; taller frames are reduced to it."""
SETTINGS = Propagation(motion_weight=0.0, temperature=0.05, top_k=10, radius=15.0, context=28)
"""Settings of TED (arXiv 2512.02339), which does not print the context. The temperature is the best
of 0.02, 0.05, 0.1 and 0.2 on synthetic:1, since TED's is meant for features of a model."""

_CELL, _PATCH = 4, 8
"""Sides of a cell and of its patch, in pixels of the frame at half resolution."""


def propagate_patches(frames: ImageSequence, first: Image) -> Iterator[Image]:
    """Propagate the masks of the first frame, and yield object indices uint8 [H, W] of each frame.

    Args:
        frames: Frames, uint8 [T, H, W, 3] RGB.
        first: Object indices in the first frame, uint8 [H, W].

    """
    objects = MaskedObjects(SETTINGS)
    objects.advance(patch_features(frames[0]), first.shape)
    objects.add_masks(first)
    yield first
    for frame in islice(frames, 1, None):
        objects.advance(patch_features(frame), first.shape)
        yield objects.mask


def patch_features(frame: Image) -> Floats:
    """Return features [rows, columns, 192] of unit length for a frame [H, W, 3].

    The feature of a cell is the difference from grey of the 16 x 16 pixels around its centre, at
    half resolution.
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
