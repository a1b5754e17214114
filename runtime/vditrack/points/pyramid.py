"""A frame's grey levels at several resolutions, read at any position and scale."""

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Grey, Indices
from vditrack.coordinates import pixel_centres, pixel_unit

_SMALLEST_SIDE = 16
"""Pixels that the shorter side of the coarsest level has at least."""
_MOST_ROWS = 32_766
"""Rows that OpenCV's remap takes."""
_CORNER = np.float32(pixel_centres(np.zeros(1, np.intp)).item())
"""Position of the first pixel's centre."""


class Pyramid:
    """Grey levels of a frame, halved again and again. Levels are computed when they are read."""

    def __init__(self, image: Grey) -> None:
        """Make the pyramid of an image uint8 [H, W]."""
        self._images = [image]
        self._floats: list[NDArray[np.float32]] = []

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        height, width = self._images[0].shape
        return height, width

    @property
    def unit(self) -> float:
        """Pixels that one pixel at a width of 256 is."""
        return pixel_unit(self.size)

    @cached_property
    def last_level(self) -> int:
        """Number of the coarsest level."""
        return max(0, int(np.log2(min(self.size) / _SMALLEST_SIDE)))

    def level(self, number: int) -> Grey:
        """Return the image uint8 at a level; its pixel (i, j) is at pixel 2**number (i, j)."""
        while len(self._images) <= number:
            self._images.append(np.asarray(cv2.pyrDown(self._images[-1]), np.uint8))
        return self._images[number]

    def nearest_levels(self, scale: Floats) -> Indices:
        """Return the levels [N] whose pixels are nearest in size to ``scale`` [N] frame pixels."""
        levels = np.rint(np.log2(np.maximum(scale, 1)))
        return np.minimum(levels, self.last_level).astype(np.intp)

    def read(self, positions: Floats, levels: Indices) -> Floats:
        """Read grey levels [N, K], interpolated linearly and constant beyond the border.

        Args:
            positions: [N, 2, K] (x, y) in pixels of the frame.
            levels: [N], the level that each row is read from.

        """
        size = np.exp2(-levels.astype(np.float32))[:, None, None]
        return self._read_levels((positions - _CORNER) * size, levels)

    def read_warped(
        self, points: Floats, shapes: Floats, offsets: Floats, levels: Indices
    ) -> Floats:
        """Read what `read` does at the positions ``points + shapes @ offsets``.

        Args:
            points: [N, 2] (x, y) in pixels of the frame.
            shapes: [N, 2, 2].
            offsets: [2, K].
            levels: [N], the level that each row is read from.

        """
        warps = np.concatenate([shapes, (points - _CORNER)[:, :, None]], axis=2)
        warps *= np.exp2(-levels.astype(np.float32))[:, None, None]
        return self._read_levels(warps[:, :, :2] @ offsets + warps[:, :, 2:], levels)

    def _read_levels(self, places: Floats, levels: Indices) -> Floats:
        """Read grey levels [N, K] at places [N, 2, K], in OpenCV's coordinates on each level."""
        numbers = set(levels.tolist())
        if len(numbers) == 1:
            return self._read_level(places, numbers.pop())
        values = np.empty((places.shape[0], places.shape[2]), np.float32)
        for number in numbers:
            rows = np.flatnonzero(levels == number)
            values[rows] = self._read_level(places[rows], number)
        return values

    def _read_level(self, places: Floats, number: int) -> Floats:
        image, border = self._level_of_floats(number), cv2.BORDER_REPLICATE
        if len(places) > _MOST_ROWS:
            parts = np.split(places, range(_MOST_ROWS, len(places), _MOST_ROWS))
            return np.concatenate([self._read_level(part, number) for part in parts])
        values = cv2.remap(image, places[:, 0], places[:, 1], cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(values, np.float32)

    def contains(self, positions: Floats) -> Bools:
        """Return which positions [N, 2, ...] (x, y), in pixels of the frame, are inside it."""
        height, width = self.size
        x, y = positions[:, 0], positions[:, 1]
        # Most often all are, which takes half as many steps to see.
        if x.size and min(x.min(), y.min()) >= 0 and x.max() < width and y.max() < height:
            return np.ones(x.shape, np.bool_)
        return np.asarray((x >= 0) & (x < width) & (y >= 0) & (y < height), np.bool_)

    def _level_of_floats(self, number: int) -> NDArray[np.float32]:
        """Return a level that was not rounded to whole grey levels.

        Rounding errors add up from level to level and hide weak texture.
        """
        if not self._floats:
            self._floats.append(self._images[0].astype(np.float32))
        while len(self._floats) <= number:
            self._floats.append(np.asarray(cv2.pyrDown(self._floats[-1]), np.float32))
        return self._floats[number]
