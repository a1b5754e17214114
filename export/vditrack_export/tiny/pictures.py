"""Pictures for the surfaces of training scenes: photographs, patterns, tiles and flat areas."""

from collections.abc import Sequence

import cv2
import numpy as np

from vditrack.arrays import Image
from vditrack.synthetic.layers.textures import draw_pattern

Pyramid = tuple[Image, ...]

_LEAST_SIDE = 32
_FLAT, _TILED, _PATTERN = 0.08, 0.1, 0.1
"""The shares of surfaces that are flat, tiled and procedural."""


def build_pyramid(photo: Image) -> Pyramid:
    """Return a photograph, uint8 [H, W, 3], at its size, half of it, a quarter and so on.

    Crops then read few pixels.
    """
    levels = [photo]
    while min(levels[-1].shape[:2]) >= 2 * _LEAST_SIDE:
        half = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
        smaller = cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(smaller, np.uint8))
    return tuple(levels)


def draw_picture(
    rng: np.random.Generator, height: int, width: int, photos: Sequence[Pyramid]
) -> Image:
    """Draw a picture, uint8 [height, width, 3]; without photographs it is procedural."""
    kind = rng.random()
    if kind < _FLAT:
        return _draw_flat(rng, height, width)
    if kind < _FLAT + _TILED:
        return _draw_tiles(rng, height, width, photos)
    if kind < _FLAT + _TILED + _PATTERN:
        return draw_pattern(rng, height, width)
    return _draw_surface(rng, height, width, photos)


def make_lookalike(rng: np.random.Generator, picture: Image, photos: Sequence[Pyramid]) -> Image:
    """Return an RGBA picture with other tints, mixed with some of another surface."""
    height, width = picture.shape[:2]
    tints, share = np.exp(rng.normal(0, 0.15, 3)), rng.uniform(0.0, 0.4)
    colours = (1 - share) * picture[..., :3] * tints
    colours += share * draw_picture(rng, height, width, photos)
    return np.dstack([np.clip(colours, 0, 255).astype(np.uint8), picture[..., 3]])


def _draw_surface(
    rng: np.random.Generator, height: int, width: int, photos: Sequence[Pyramid]
) -> Image:
    if not photos:
        return draw_pattern(rng, height, width)
    return _draw_crop(rng, height, width, photos[int(rng.integers(len(photos)))])


def _draw_tiles(
    rng: np.random.Generator, height: int, width: int, photos: Sequence[Pyramid]
) -> Image:
    """Repeat one small picture, so that only the surroundings tell one tile from another."""
    rows, columns = (int(side) for side in rng.integers(12, 48, 2))
    tile = _draw_surface(rng, rows, columns, photos)
    across, down = -(-width // columns), -(-height // rows)
    return np.ascontiguousarray(np.tile(tile, (down, across, 1))[:height, :width])


def _draw_crop(rng: np.random.Generator, height: int, width: int, levels: Pyramid) -> Image:
    rows, columns = levels[0].shape[:2]
    largest = min(rows / height, columns / width)
    # Photograph pixels per picture pixel; few photographs are sharp enough for less than a half.
    least = min(max(0.3 * largest, 0.5), largest)
    zoom = float(np.exp(rng.uniform(np.log(least), np.log(largest))))
    level = int(np.clip(np.log2(max(zoom, 1.0)), 0, len(levels) - 1))
    photo = levels[level]
    size = np.maximum(8, np.array([height, width]) * zoom / 2**level).astype(int)
    size = np.minimum(size, photo.shape[:2])
    top, left = rng.integers(np.array(photo.shape[:2]) - size + 1)
    crop = photo[top : top + size[0], left : left + size[1]]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    method = cv2.INTER_LINEAR if zoom > 1 else cv2.INTER_CUBIC
    return np.asarray(
        cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=method), np.uint8
    )


def _draw_flat(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw a colour that changes slowly across the picture, as on walls, roads and skies."""
    corners = rng.uniform(0, 255, 3) + rng.normal(0, 20, (2, 2, 3))
    blended = cv2.resize(corners.astype(np.float32), (width, height))
    return np.asarray(np.clip(blended, 0, 255), np.uint8)
