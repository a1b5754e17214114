"""Images of a clip that are read when they are needed, indexed like an array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import overload

import cv2
import numpy as np
from numpy.typing import DTypeLike

from vditrack.arrays import Image, ImageSequence, Mask

_KEPT_BYTES = 1 << 28
"""Memory in which the images of a short clip are kept, so that they are read once."""
_LATEST = 2
"""Images that are kept, since methods go from one frame to the next."""


class LazyImages:
    """T images of one size, uint8 [T, H, W, ...], each read when it is indexed."""

    def __init__(self, read: Callable[[int], Image], count: int, shape: tuple[int, ...]) -> None:
        """Take the images 0 to ``count`` that a function reads by number, each of ``shape``."""
        self._read = lru_cache(_LATEST)(read)
        self._numbers, self._image_shape = range(count), shape

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W, ...)."""
        return (len(self._numbers), *self._image_shape)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[Image]:
        """Read one image after the other."""
        return map(self._read, self._numbers)

    @overload
    def __getitem__(self, key: int) -> Image: ...
    @overload
    def __getitem__(self, key: slice) -> LazyImages: ...
    def __getitem__(self, key: int | slice) -> Image | LazyImages:
        """Read an image by its number, or return some of the images, which are not read yet."""
        if isinstance(key, slice):
            numbers = self._numbers[key]
            return LazyImages(lambda n: self._read(numbers[n]), len(numbers), self._image_shape)
        return self._read(self._numbers[key])

    def __array__(self, dtype: DTypeLike | None = None, *, copy: bool | None = None) -> Image:
        """Read all images into an array."""
        # np.stack would need the memory of the clip twice.
        images = np.empty(self.shape, dtype or np.uint8)
        for t, image in enumerate(self):
            images[t] = image
        return images


def keep_if_short(images: LazyImages) -> ImageSequence:
    """Return the images of a short clip as an array in memory, and those of a longer one as given.

    A clip is short if its images take at most 256 MiB.
    """
    return np.asarray(images) if math.prod(images.shape) <= _KEPT_BYTES else images


def map_images(
    images: ImageSequence, function: Callable[[Image], Image], shape: tuple[int, ...]
) -> ImageSequence:
    """Return the images that a function makes of each image, of ``shape``.

    They are in memory if the images are.
    """
    lazy = LazyImages(lambda t: function(images[t]), len(images), shape)
    return np.asarray(lazy) if isinstance(images, np.ndarray) else lazy


def gather_masks(masks: Iterable[Mask], frames: ImageSequence) -> ImageSequence:
    """Return the masks uint8 [H, W] of T frames, in one array if the frames are in memory.

    Otherwise they are kept as PNG, and decoded when they are indexed.
    """
    if isinstance(frames, np.ndarray):
        return np.stack(list(masks))
    kept = [cv2.imencode(".png", mask)[1] for mask in masks]
    return LazyImages(
        lambda t: np.asarray(cv2.imdecode(kept[t], cv2.IMREAD_UNCHANGED), np.uint8),
        len(kept),
        frames.shape[1:3],
    )
