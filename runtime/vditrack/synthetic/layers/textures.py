"""Draws pictures for surfaces: crops of photographs and procedural patterns."""

from collections.abc import Sequence

import cv2
import numpy as np

from vditrack.arrays import Floats, Image


def draw_texture(
    rng: np.random.Generator, height: int, width: int, photos: Sequence[Image]
) -> Image:
    """Draw a picture, uint8 [height, width, 3]: a photograph with probability 0.8, if any."""
    if len(photos) and rng.random() < 0.8:
        return _crop_photo(rng, height, width, photos[int(rng.integers(len(photos)))])
    return draw_pattern(rng, height, width)


def _crop_photo(rng: np.random.Generator, height: int, width: int, photo: Image) -> Image:
    rows, columns = photo.shape[:2]
    largest = min(rows / height, columns / width)
    zoom = largest * np.exp(rng.uniform(np.log(0.3), 0.0))
    crop_height, crop_width = max(8, int(zoom * height)), max(8, int(zoom * width))
    top = int(rng.integers(rows - crop_height + 1))
    left = int(rng.integers(columns - crop_width + 1))
    crop = photo[top : top + crop_height, left : left + crop_width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    shrinks = zoom > 1
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = cv2.resize(np.ascontiguousarray(crop), (width, height), interpolation=method)
    return np.asarray(resized, np.uint8)


def draw_pattern(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw a procedural picture, uint8 [height, width, 3]: one pattern, or two blended."""
    colours = _colour_field(rng, _draw_field(rng, height, width))
    if rng.random() < 0.5:
        other = _colour_field(rng, _draw_field(rng, height, width))
        blend = _draw_octaves(rng, height, width)[..., None]
        colours = colours * blend + other * (1 - blend)
    return np.clip(colours, 0, 255).astype(np.uint8)


def add_grain(rng: np.random.Generator, picture: Image, strength: float) -> Image:
    """Add grain to a picture, uint8 [h, w, 3], so that no region is without texture.

    The grain is 2 to 16 pixels wide and has an amplitude of up to ``strength`` grey levels.
    """
    height, width = picture.shape[:2]
    shade = np.zeros((height, width), np.float32)
    for cell in (2, 4, 8, 16):
        coarse = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
        shade += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    shaded = picture + strength * np.tanh(shade / 2)[..., None]
    return np.clip(shaded, 0, 255).astype(np.uint8)


def draw_clouds(rng: np.random.Generator, height: int, width: int, finest: float) -> Image:
    """Draw soft clouds, uint8 [height, width, 3], without detail below ``finest`` pixels."""
    colours = _colour_field(rng, _draw_octaves(rng, height, width, finest))
    return np.clip(colours, 0, 255).astype(np.uint8)


def draw_flat_shapes(
    rng: np.random.Generator, height: int, width: int, sides: tuple[float, float]
) -> Image:
    """Draw flat shapes on a flat ground, uint8 [height, width, 3]; some overlap.

    Args:
        rng: Random generator.
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.
        sides: Shortest and longest side of a shape, in pixels.

    """
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = rng.uniform(0, 255, 3)
    count = round(height * width / np.mean(sides) ** 2)
    for _ in range(count):
        rows, columns = np.minimum(rng.uniform(*sides, 2).astype(int), (height, width))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        cover = draw_silhouette(rng, int(rows), int(columns))[..., None] / np.float32(255)
        place = picture[top : top + rows, left : left + columns]
        place += (rng.uniform(0, 255, 3).astype(np.float32) - place) * cover
    return np.asarray(np.round(picture), np.uint8)


def _draw_field(rng: np.random.Generator, height: int, width: int) -> Floats:
    kinds = (_draw_octaves, _draw_octaves, _draw_stripes, _draw_checks, _draw_speckle)
    return kinds[int(rng.integers(len(kinds)))](rng, height, width)


def _colour_field(rng: np.random.Generator, field: Floats) -> Floats:
    """Colour a field with values from 0 to 1 by a gradient through three random colours."""
    ramp = rng.uniform(0, 255, (3, 3))
    stops = [0.0, rng.uniform(0.3, 0.7), 1.0]
    channels = [np.interp(field, stops, ramp[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _draw_octaves(rng: np.random.Generator, height: int, width: int, finest: float = 1.5) -> Floats:
    """Draw smooth noise [height, width], 0 to 1, in octaves of cells above ``finest`` pixels."""
    roughness = rng.uniform(0.4, 0.9)
    cell = max(height, width) / rng.uniform(1.5, 4)
    field, weight = np.zeros((height, width), np.float32), 1.0
    while cell > finest:
        coarse = rng.standard_normal((int(height / cell) + 2, int(width / cell) + 2))
        fine = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        field += weight * fine
        weight, cell = weight * roughness, cell / 2
    return _normalize(field)


def _draw_stripes(rng: np.random.Generator, height: int, width: int) -> Floats:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(6, 40)
    bend = 6 * _draw_octaves(rng, height, width)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength + bend)
    return np.asarray(0.5 + 0.5 * np.tanh(3 * wave), np.float32)


def _draw_checks(rng: np.random.Generator, height: int, width: int) -> Floats:
    rows = max(2, int(height / rng.uniform(8, 30)))
    columns = max(2, int(width / rng.uniform(8, 30)))
    cells = rng.random((rows, columns)).astype(np.float32)
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST))


def _draw_speckle(rng: np.random.Generator, height: int, width: int) -> Floats:
    dots = (rng.random((height, width)) < rng.uniform(0.01, 0.06)).astype(np.float32)
    spread = cv2.GaussianBlur(dots, (0, 0), rng.uniform(0.8, 2.5))
    return _normalize(np.asarray(spread, np.float32))


def _normalize(field: Floats) -> Floats:
    low, high = np.quantile(field, (0.02, 0.98))
    return np.asarray(np.clip((field - low) / (high - low + 1e-6), 0, 1), np.float32)


def draw_silhouette(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw a silhouette, uint8 [height, width]: smooth or polygonal, 0 on the border."""
    cornered = rng.random() < 0.35
    count = int(rng.integers(3, 8)) if cornered else 64
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    if cornered:
        radius = rng.uniform(0.7, 1.0, count)
        angles = angles + rng.uniform(-0.3, 0.3, count) * 2 * np.pi / count
    else:
        radius = np.ones(count)
        for harmonic in range(2, 6):
            swing = rng.uniform(0, 0.35 / harmonic)
            radius += swing * np.cos(harmonic * angles + rng.uniform(0, 2 * np.pi))
        radius /= radius.max()
    half = np.array([width, height]) / 2 - 2
    outline = np.stack([np.cos(angles), np.sin(angles)], -1) * radius[:, None] * half
    corners = np.round((outline + np.array([width, height]) / 2 - 0.5) * 16).astype(np.int32)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, shift=4)
    mask[[0, -1]] = mask[:, [0, -1]] = 0
    return mask
