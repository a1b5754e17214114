"""The leaving benchmark: a camera pans, zooms or rotates over one large picture.

Points leave the frame across its edges, and in half of the clips they return. Nothing else hides
them, so a point outside the frame has a known position and must not be reported as visible.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import cv2
import numpy as np

from vditrack.arrays import Image
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.camera_effects import PERFECT, Camera
from vditrack.synthetic.layers.challenges import draw_surface
from vditrack.synthetic.layers.scenes import Anchors, Layer, Motion, Scene, Waves
from vditrack.synthetic.layers.textures import draw_clouds, draw_flat_shapes
from vditrack.synthetic.layers.trajectories import stay_at, swing

COUNT = 12
"""Number of clips in the benchmark: each kind of picture with each kind of move."""
FRAMES = 40
"""Number of frames of a clip."""

_SIZES = ((256, 192), (400, 300), (800, 600))
"""Width and height of the frames, in pixels."""
_PICKED = {0: 40, FRAMES // 3: 12, FRAMES * 2 // 3: 12}
"""Number of points picked, by the frame in which they are picked."""
_MARGIN = 4.0
"""Smallest distance of a picked point from the edges of the frame, in pixels."""
_NOISE = (1.0, 3.0)
"""Lowest and highest standard deviation of the camera's noise, in grey levels."""


def render_leaving(seed: int) -> Iterator[AnnotatedClip]:
    """Render the clips of the benchmark, one at a time.

    A clip has 40 frames of 256 x 192, 400 x 300 or 800 x 600 pixels and the tracks of 64 points,
    whose positions are exact outside the frame too. Its name starts with the kind of picture
    (textured, blurred, clouds or shapes) and the kind of move (pan, zoom or rotate). The move is
    one-way in half of the clips; in the others it returns, and points reappear. The same seed (0 or
    more) and versions of NumPy and OpenCV give the same bytes.
    """
    for number in range(COUNT):
        yield render_scene(get_clip_name(number), *draw_scene(seed, number))


def get_clip_name(number: int) -> str:
    """Return the name of clip ``number``, which starts with its kinds of picture and move."""
    picture, move = divmod(number, len(MOVES))
    return f"{list(PICTURES)[picture]}-{list(MOVES)[move]}-{number:02}"


def draw_scene(seed: int, number: int) -> tuple[Scene, Camera, np.random.Generator]:
    """Draw the scene and the camera of clip ``number``; also return the generator for rendering.

    Each clip has its own random stream, independent of the other clips.
    """
    rng = np.random.default_rng([seed, number, 2])
    kind, way = divmod(number, len(MOVES))
    # Each kind of picture and each kind of move comes in every size, one-way and returning.
    width, height = _SIZES[(kind + way) % len(_SIZES)]
    draw_picture, draw_move = list(PICTURES.values())[kind], list(MOVES.values())[way]
    last = FRAMES - 1
    rate = np.pi / (rng.uniform(0.85, 0.95) * last if (kind + way) % 2 else 2 * last)
    motion = Motion(draw_move(rng, width, height, rate), 1.0, (0.0, 0.0), (0.0, 0.0))
    columns, rows = _measure_extent(motion, width, height)
    picture = draw_picture(rng, rows, columns, width)
    opaque = np.full((rows, columns), 255, np.uint8)
    layer = Layer(np.dstack([picture, opaque]), motion, boundless=True)
    camera = replace(PERFECT, noise=float(rng.uniform(*_NOISE)))
    return Scene(height, width, (layer,)), camera, rng


def render_scene(
    name: str, scene: Scene, camera: Camera, rng: np.random.Generator
) -> AnnotatedClip:
    """Render a clip of a scene; points are picked in the first frame and in two later ones."""
    times = [float(time) for time in range(FRAMES)]
    size = np.array([scene.width, scene.height])
    anchors = [
        scene.anchor(rng.uniform(_MARGIN, size - _MARGIN, (count, 2)), float(time))
        for time, count in _PICKED.items()
    ]
    joined = Anchors(
        np.concatenate([a.layer for a in anchors]), np.concatenate([a.surface for a in anchors])
    )
    points, visible = scene.track(joined, times)
    frames = np.stack([camera.shoot(scene, time, rng) for time in times])
    return AnnotatedClip(name, frames, points, visible, known_outside=True)


def _measure_extent(motion: Motion, width: int, height: int) -> tuple[int, int]:
    """Return the columns and rows of a picture that fills the frame at all times.

    The picture is mirrored beyond its edges, and there a point would have a double.
    """
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    seen = [motion.inverse(corners, float(time)) for time in range(FRAMES)]
    columns, rows = 2 * np.ceil(np.abs(seen).max(axis=(0, 1))).astype(int) + 4
    return int(columns), int(rows)


def _draw_pan(rng: np.random.Generator, width: int, height: int, rate: float) -> Waves:
    """Draw a pan by half to four fifths of the frame, in any direction."""
    return _move_across(rng, width, height, rate, (0.5, 0.8))


def _draw_zoom(rng: np.random.Generator, width: int, height: int, rate: float) -> Waves:
    """Draw a zoom to about twice the size, with a slight pan.

    It never goes below the size of the picture, which would need smoothing.
    """
    closer = swing(rate, 0.0, log_scale=float(rng.uniform(0.5, 0.8)))
    return _move_across(rng, width, height, rate, (0.1, 0.2)) + closer


def _draw_rotation(rng: np.random.Generator, width: int, height: int, rate: float) -> Waves:
    """Draw a rotation by 34 to 63 degrees with a pan by a quarter to two fifths of the frame."""
    turn = float(rng.choice([-1, 1]) * rng.uniform(0.6, 1.1))
    return _move_across(rng, width, height, rate, (0.25, 0.4)) + swing(rate, 0.0, angle=turn)


def _move_across(
    rng: np.random.Generator, width: int, height: int, rate: float, share: tuple[float, float]
) -> Waves:
    """Draw a pan by a share of the frame, centred so that the picture needs the least extent."""
    heading, reach = rng.uniform(0, 2 * np.pi), rng.uniform(*share)
    across, down = reach * width * np.cos(heading), reach * height * np.sin(heading)
    start = stay_at((width - across) / 2, (height - down) / 2)
    return start + swing(rate, 0.0, x=across, y=down)


def _draw_textured(rng: np.random.Generator, height: int, width: int, frame: int) -> Image:
    """Draw a sharp picture that has texture everywhere, whatever the width of the frame."""
    del frame
    return draw_surface(rng, height, width)


def _draw_blurred(rng: np.random.Generator, height: int, width: int, frame: int) -> Image:
    """Draw a picture out of focus: the blur grows with the width of the frame, in pixels."""
    sharp = draw_surface(rng, height, width)
    sigma = frame * rng.uniform(0.004, 0.012)
    return np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma), np.uint8)


def _draw_clouds(rng: np.random.Generator, height: int, width: int, frame: int) -> Image:
    """Draw soft clouds, whose finest detail is a twelfth to a fifth of the frame's width."""
    return draw_clouds(rng, height, width, frame * rng.uniform(1 / 12, 1 / 5))


def _draw_shapes(rng: np.random.Generator, height: int, width: int, frame: int) -> Image:
    """Draw flat shapes of 0.08 to 0.3 of the frame's width on a flat ground."""
    return draw_flat_shapes(rng, height, width, (0.08 * frame, 0.3 * frame))


PICTURES: Mapping[str, Callable[[np.random.Generator, int, int, int], Image]] = {
    "textured": _draw_textured,
    "blurred": _draw_blurred,
    "clouds": _draw_clouds,
    "shapes": _draw_shapes,
}
"""Functions that draw a picture of a height and width, given the width of the frame."""
MOVES: Mapping[str, Callable[[np.random.Generator, int, int, float], Waves]] = {
    "pan": _draw_pan,
    "zoom": _draw_zoom,
    "rotate": _draw_rotation,
}
"""Functions that draw a path, given the width and height of the frame and its angular frequency."""
