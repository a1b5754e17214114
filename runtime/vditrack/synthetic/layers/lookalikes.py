"""The look-alike benchmark: objects that look the same and cross, made from a seed.

Only the motion tells the objects apart, as in Kubric-Similar of TED (arXiv 2512.02339).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from vditrack.arrays import Bools, Doubles, Image
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.challenges import (
    ALMOST_PERFECT,
    CALM,
    SIZE,
    add_ripples,
    draw_backdrop,
    draw_surface,
)
from vditrack.synthetic.layers.scenes import Layer, Motion, Scene, Waves
from vditrack.synthetic.layers.textures import draw_silhouette
from vditrack.synthetic.layers.trajectories import follow_arc, sway, swing_through

Place = tuple[float, float]

COUNT = 30
"""Number of clips in the benchmark: ten of each kind of path."""
FRAMES = 24
"""Number of frames of a clip."""

_LAST = FRAMES - 1
_SPEEDS = (2.0, 8.0)
"""Lowest and highest speed, in pixels per frame."""
_SIDES = (28.0, 64.0)
"""Shortest and longest side of an object's picture, in pixels."""
_MIN_OVERLAP, _MIN_SHARE_IN_FRAME = 1 / 3, 0.6
_MARGIN = 2
"""Smallest distance of separate objects, in pixels."""
_DIFFERENCE = 40.0
"""Smallest mean absolute difference of two different pictures, in grey levels per channel."""


def render_lookalikes(seed: int, *, different: bool = False) -> Iterator[AnnotatedClip]:
    """Render the clips of the benchmark, one at a time.

    A clip has 24 frames of 256 x 256 pixels and the masks of two to four objects before a backdrop;
    it has no points. The objects have the same size, outline and picture and move on different
    paths at 2 to 8 pixels per frame (slower where they turn back). In the first and the last frame
    they are separate, with at least 60% of each object inside the frame. In between, two of them
    overlap by at least a third, and no object turns back while it overlaps another. The name starts
    with the kind of path: straight, arcs or round-trips (every other object returns). The same seed
    (0 or more) and versions of NumPy and OpenCV give the same bytes.

    Args:
        seed: Seed of all random streams.
        different: Render the control: each object has its own picture; masks, backdrops and noise
            are the same. ``alike`` lists the same objects, so that the same crossings are scored.

    Yields:
        The clips.

    """
    for number in range(COUNT):
        yield _render_scene(get_clip_name(number), *draw_scene(seed, number, different=different))


def get_clip_name(number: int) -> str:
    """Return the name of clip ``number``, which starts with its kind."""
    return f"{list(PATHS)[number % len(PATHS)]}-{number:02}"


def draw_scene(seed: int, number: int, *, different: bool) -> tuple[Scene, np.random.Generator]:
    """Draw the scene of clip ``number``, and return it with the generator for rendering it.

    Each clip has its own random stream, independent of the other clips.
    """
    # NumPy equates [seed, number] with [seed, number, 0], which is the stream of the suite.
    rng = np.random.default_rng([seed, number, 1])
    paths = list(PATHS.values())[number % len(PATHS)]
    count = 2 + number // len(PATHS) % 3
    objects = _draw_objects(rng, paths(rng, count))
    while not _objects_cross(objects):
        objects = _draw_objects(rng, paths(rng, count))
    calm = rng.uniform(0, 12)
    swaying = sway(rng, CALM, x=calm, y=calm, log_scale=0.003 * calm, angle=0.003 * calm)
    behind = draw_backdrop(rng, swaying)
    # Draw all pictures in both cases, so that the camera noise drawn afterwards is the same.
    pictures = _draw_pictures(rng, objects)
    chosen = pictures if different else [pictures[0]] * count
    return Scene(SIZE, SIZE, (behind, *objects.layers(chosen))), rng


def draw_straight_paths(rng: np.random.Generator, count: int) -> list[Waves]:
    """Draw straight paths through the centre."""
    speed = rng.uniform(*_SPEEDS)
    return [
        swing_through(*_draw_crossing(rng), heading, _vary_speed(rng, speed), reach=100 * SIZE)
        for heading in _draw_headings(rng, count)
    ]


def draw_arcs(rng: np.random.Generator, count: int) -> list[Waves]:
    """Draw paths through the centre, each a fifth to two fifths of a circle."""
    speed, turn = rng.uniform(*_SPEEDS), 2 * np.pi * rng.uniform(0.2, 0.4)
    return [
        follow_arc(
            *_draw_crossing(rng),
            heading,
            _vary_speed(rng, speed),
            rng.choice([-1, 1]) * turn / FRAMES,
        )
        for heading in _draw_headings(rng, count)
    ]


def draw_round_trips(rng: np.random.Generator, count: int) -> list[Waves]:
    """Draw paths through the centre and back for every other object, and straight paths between.

    The straight paths cross the others on the way there or on the way back.
    """
    speed = rng.uniform(5.0, _SPEEDS[1])
    paths = []
    for n, heading in enumerate(_draw_headings(rng, count)):
        middle, moment = _draw_crossing(rng)
        own = _vary_speed(rng, speed)
        # From the middle and back to it takes half a period.
        away = _LAST * rng.uniform(0.58, 0.66)
        if n % 2 == 0:
            reach = own * away / np.pi
            paths.append(swing_through(middle, moment - away / 2, heading, own, reach))
        else:
            moment += rng.choice([-1, 1]) * away / 2
            paths.append(swing_through(middle, moment, heading, own, reach=100 * SIZE))
    return paths


PATHS: Mapping[str, Callable[[np.random.Generator, int], list[Waves]]] = {
    "straight": draw_straight_paths,
    "arcs": draw_arcs,
    "round-trips": draw_round_trips,
}


def _draw_headings(rng: np.random.Generator, count: int) -> Doubles:
    """Draw headings, float64 [count], in radians, spread over the full circle."""
    around = 2 * np.pi * np.arange(count) / count + rng.uniform(-0.3, 0.3, count)
    return np.asarray(around + rng.uniform(0, 2 * np.pi))


def _draw_crossing(rng: np.random.Generator) -> tuple[Place, float]:
    """Draw a position near the centre of the frame and a time near the middle of the clip."""
    x, y = SIZE / 2 + rng.uniform(-8, 8, 2)
    return (x, y), _LAST / 2 + rng.uniform(-1.5, 1.5)


def _vary_speed(rng: np.random.Generator, speed: float) -> float:
    return float(np.clip(speed * rng.uniform(0.85, 1.15), *_SPEEDS))


@dataclass(frozen=True)
class _Objects:
    """Objects with the same outline."""

    outline: Image
    """Silhouette, uint8 [h, w], 255 inside."""
    motions: tuple[Motion, ...]

    def layers(self, pictures: Sequence[Image]) -> list[Layer]:
        """Return a layer for each object, with the pictures, uint8 [h, w, 3], on the outline."""
        return [
            Layer(np.dstack([picture, self.outline]), motion)
            for picture, motion in zip(pictures, self.motions, strict=True)
        ]


def _draw_objects(rng: np.random.Generator, paths: Sequence[Waves]) -> _Objects:
    """Draw an outline so small that objects on the paths are separate in first and last frame."""
    distances = [
        np.linalg.norm((one.at(time) - other.at(time))[:2])
        for one, other in combinations(paths, 2)
        for time in (0, _LAST)
    ]
    sides = rng.uniform(0.8, 0.95, 2) * min(distances)
    height, width = np.clip(sides, *_SIDES).round().astype(int).tolist()
    motions = tuple(
        add_ripples(rng, path + sway(rng, CALM, angle=0.15, shear=0.04)) for path in paths
    )
    return _Objects(draw_silhouette(rng, height, width), motions)


def _objects_cross(objects: _Objects) -> bool:
    """Return whether objects start and end separate, and two cross in between.

    No object may turn back during a crossing. At least one object must have left its first position
    when all are separate again; otherwise a method that predicts no motion would score.
    """
    blank = np.zeros((*objects.outline.shape, 3), np.uint8)
    layers = objects.layers([blank] * len(objects.motions))
    whole = int(np.count_nonzero(objects.outline >= 128))
    first, last = (_render_silhouettes(layers, time) for time in (0, _LAST))
    if not (_are_apart(first, whole) and _are_apart(last, whole)):
        return False
    shown = np.stack(
        [first, *(_render_silhouettes(layers, time) for time in range(1, _LAST)), last]
    )
    overlaps = np.array([_measure_overlap(shapes) for shapes in shown])
    if overlaps.max() < _MIN_OVERLAP or _turns_back(objects.motions, shown):
        return False
    afterwards = shown[np.flatnonzero(overlaps)[-1] + 1 :].any(axis=0)
    return not (first & afterwards).any(axis=(1, 2)).all()


def _render_silhouettes(layers: Sequence[Layer], time: float) -> Bools:
    return np.stack([layer.silhouette(time, SIZE, SIZE) for layer in layers])


def _are_apart(shapes: Bools, whole: int) -> bool:
    """Return whether each shape, bool [N, H, W], is mostly in the frame and apart from others."""
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _MARGIN + 1, 2 * _MARGIN + 1))
    grown = np.stack([cv2.dilate(shape.astype(np.uint8), disk) for shape in shapes])
    seen = np.count_nonzero(shapes, axis=(1, 2)) >= _MIN_SHARE_IN_FRAME * whole
    return bool(seen.all() and grown.sum(axis=0).max() == 1)


def _measure_overlap(shapes: Bools) -> float:
    """Return the largest overlap of two shapes, bool [N, H, W], as a share of the smaller one."""
    return max(
        float(np.count_nonzero(one & other) / max(min(one.sum(), other.sum()), 1))
        for one, other in combinations(shapes, 2)
    )


def _turns_back(motions: Sequence[Motion], shown: Bools) -> bool:
    """Return whether an object turns back while its shape, bool [T, N, H, W], overlaps another."""
    times = range(len(shown))
    places = np.array([[one.waves.at(time)[:2] for one in motions] for time in times])
    steps = np.diff(places, axis=0)
    back = (steps[1:] * steps[:-1]).sum(axis=2) <= 0
    shared = shown & (shown.sum(axis=1, keepdims=True) > 1)
    return bool((back & shared.any(axis=(2, 3))[1:-1]).any())


def _draw_pictures(rng: np.random.Generator, objects: _Objects) -> list[Image]:
    """Draw a picture, uint8 [h, w, 3], for each object, all clearly different."""
    pictures: list[Image] = []
    while len(pictures) < len(objects.motions):
        picture = draw_surface(rng, *objects.outline.shape)
        if all(np.abs(picture - other.astype(int)).mean() > _DIFFERENCE for other in pictures):
            pictures.append(picture)
    return pictures


def _render_scene(name: str, filmed: Scene, rng: np.random.Generator) -> AnnotatedClip:
    times = [float(time) for time in range(FRAMES)]
    masks = np.stack([filmed.mask(time) for time in times])
    frames = np.stack([ALMOST_PERFECT.shoot(filmed, time, rng) for time in times])
    points, visible = np.zeros((0, FRAMES, 2), np.float32), np.zeros((0, FRAMES), np.bool_)
    alike = tuple(range(1, len(filmed.layers)))
    return AnnotatedClip(name, frames, points, visible, masks, alike=alike)
