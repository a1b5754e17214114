"""A benchmark of objects that look the same and cross: the same seed makes the same clips.

It is to be to masks what Kubric-Similar is in TED (arXiv 2512.02339): nothing but the motion tells
the objects apart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.arrays import Bools, Doubles
from vditrack.synthetic.layers.challenges import ALMOST_PERFECT, CALM, SIZE, backdrop, bent, surface
from vditrack.synthetic.layers.scenes import Layer, Motion, Scene, Waves
from vditrack.synthetic.layers.textures import blob
from vditrack.synthetic.layers.trajectories import arc, sway, there_and_back

Image = NDArray[np.uint8]
Place = tuple[float, float]

COUNT = 30
"""Clips in the benchmark: ten of each kind of path."""
FRAMES = 24

_LAST = FRAMES - 1
_SPEEDS = (2.0, 8.0)
"""Least and greatest, in pixels a frame."""
_SIDES = (28.0, 64.0)
"""Shortest and longest of an object's picture, in pixels."""
_THIRD, _MOSTLY = 1 / 3, 0.6
_MARGIN = 2
"""Pixels between objects that are apart."""
_DIFFERENCE = 40.0
"""Least mean distance of the pixels of pictures that look different, in grey levels a channel."""


def lookalike_clips(seed: int, *, different: bool = False) -> Iterator[AnnotatedClip]:
    """Render the clips, each when it is asked for.

    A clip has 24 frames of 256 x 256 pixels and the masks of its two to four objects, and nothing
    else but a backdrop. The objects have one size, outline and picture, and each has a path of its
    own, at 2 to 8 pixels a frame (less where it turns round). In the first and last frame they are
    apart, with at least 60% of each in the picture. In between two of them cover one another by a
    third or more, and each keeps its direction while it passes. The clip's name begins with the
    kind of paths: straight, arcs or round-trips (every other object goes through the middle and
    back). The same seed (0 or more) and versions of NumPy and OpenCV make the same bytes.

    Args:
        seed: of all random streams.
        different: give every object a picture of its own, and leave all else as it is: the same
            masks, backdrops and noise. This is the control. Its ``alike`` are the same objects, so
            that it is asked about the same crossings.

    """
    for number in range(COUNT):
        yield _film(clip_name(number), *scene(seed, number, different=different))


def clip_name(number: int) -> str:
    """Return the name of one of the clips, its kind first."""
    return f"{list(PATHS)[number % len(PATHS)]}-{number:02}"


def scene(seed: int, number: int, *, different: bool) -> tuple[Scene, np.random.Generator]:
    """Draw one clip's scene, and return it with the generator that films it.

    Each clip has a random stream of its own and depends on no other clip.
    """
    # NumPy takes [seed, number] for [seed, number, 0], and that stream is the suite's.
    rng = np.random.default_rng([seed, number, 1])
    paths = list(PATHS.values())[number % len(PATHS)]
    count = 2 + number // len(PATHS) % 3
    objects = _draw(rng, paths(rng, count))
    while not _cross(objects):
        objects = _draw(rng, paths(rng, count))
    calm = rng.uniform(0, 12)
    swaying = sway(rng, CALM, x=calm, y=calm, log_scale=0.003 * calm, angle=0.003 * calm)
    behind = backdrop(rng, swaying)
    # All are drawn in either case, so that what the camera draws afterwards is the same.
    pictures = _pictures(rng, objects)
    chosen = pictures if different else [pictures[0]] * count
    return Scene(SIZE, SIZE, (behind, *objects.layers(chosen))), rng


def straight(rng: np.random.Generator, count: int) -> list[Waves]:
    """Draw paths straight through the middle."""
    speed = rng.uniform(*_SPEEDS)
    return [
        there_and_back(*_meeting(rng), heading, _varied(rng, speed), reach=100 * SIZE)
        for heading in _headings(rng, count)
    ]


def arcs(rng: np.random.Generator, count: int) -> list[Waves]:
    """Draw paths through the middle, each a fifth to two fifths of a circle."""
    speed, turn = rng.uniform(*_SPEEDS), 2 * np.pi * rng.uniform(0.2, 0.4)
    return [
        arc(*_meeting(rng), heading, _varied(rng, speed), rng.choice([-1, 1]) * turn / FRAMES)
        for heading in _headings(rng, count)
    ]


def round_trips(rng: np.random.Generator, count: int) -> list[Waves]:
    """Draw paths through the middle and back for every other object, and straight ones between.

    Those who go straight meet the others on their way there or on their way back.
    """
    speed = rng.uniform(5.0, _SPEEDS[1])
    paths = []
    for n, heading in enumerate(_headings(rng, count)):
        middle, moment = _meeting(rng)
        own = _varied(rng, speed)
        # From the middle and back to it takes half a period.
        away = _LAST * rng.uniform(0.58, 0.66)
        if n % 2 == 0:
            reach = own * away / np.pi
            paths.append(there_and_back(middle, moment - away / 2, heading, own, reach))
        else:
            moment += rng.choice([-1, 1]) * away / 2
            paths.append(there_and_back(middle, moment, heading, own, reach=100 * SIZE))
    return paths


PATHS: Mapping[str, Callable[[np.random.Generator, int], list[Waves]]] = {
    "straight": straight,
    "arcs": arcs,
    "round-trips": round_trips,
}


def _headings(rng: np.random.Generator, count: int) -> Doubles:
    """Draw directions [count] in radians, all round."""
    around = 2 * np.pi * np.arange(count) / count + rng.uniform(-0.3, 0.3, count)
    return np.asarray(around + rng.uniform(0, 2 * np.pi))


def _meeting(rng: np.random.Generator) -> tuple[Place, float]:
    """Draw a place near the middle of the frame, and a frame near the middle of the clip."""
    x, y = SIZE / 2 + rng.uniform(-8, 8, 2)
    return (x, y), _LAST / 2 + rng.uniform(-1.5, 1.5)


def _varied(rng: np.random.Generator, speed: float) -> float:
    return float(np.clip(speed * rng.uniform(0.85, 1.15), *_SPEEDS))


@dataclass(frozen=True)
class _Objects:
    """Objects of one outline."""

    outline: Image
    """[h, w], 255 inside."""
    motions: tuple[Motion, ...]

    def layers(self, pictures: Sequence[Image]) -> list[Layer]:
        """Give each object a picture [h, w, 3]; the same one makes them look the same."""
        return [
            Layer(np.dstack([picture, self.outline]), motion)
            for picture, motion in zip(pictures, self.motions, strict=True)
        ]


def _draw(rng: np.random.Generator, paths: Sequence[Waves]) -> _Objects:
    """Draw an outline that fits between objects on the paths in the first and the last frame."""
    distances = [
        np.linalg.norm((one.at(time) - other.at(time))[:2])
        for one, other in combinations(paths, 2)
        for time in (0, _LAST)
    ]
    sides = rng.uniform(0.8, 0.95, 2) * min(distances)
    height, width = np.clip(sides, *_SIDES).round().astype(int).tolist()
    motions = tuple(bent(rng, path + sway(rng, CALM, angle=0.15, shear=0.04)) for path in paths)
    return _Objects(blob(rng, height, width), motions)


def _cross(objects: _Objects) -> bool:
    """Tell whether objects begin and end apart, and one has passed through another in between.

    None may turn back while it does. It also has to show when nothing is followed: one object at
    least has left the place where it began when all are apart again.
    """
    blank = np.zeros((*objects.outline.shape, 3), np.uint8)
    layers = objects.layers([blank] * len(objects.motions))
    whole = int(np.count_nonzero(objects.outline >= 128))
    first, last = (_silhouettes(layers, time) for time in (0, _LAST))
    if not (_apart(first, whole) and _apart(last, whole)):
        return False
    shown = np.stack([first, *(_silhouettes(layers, time) for time in range(1, _LAST)), last])
    overlaps = np.array([_overlap(shapes) for shapes in shown])
    if overlaps.max() < _THIRD or _turn_back(objects.motions, shown):
        return False
    afterwards = shown[np.flatnonzero(overlaps)[-1] + 1 :].any(axis=0)
    return not (first & afterwards).any(axis=(1, 2)).all()


def _silhouettes(layers: Sequence[Layer], time: float) -> Bools:
    return np.stack([layer.silhouette(time, SIZE, SIZE) for layer in layers])


def _apart(shapes: Bools, whole: int) -> bool:
    """Tell whether most of each object [N, H, W] is in the picture, and none is near another."""
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _MARGIN + 1, 2 * _MARGIN + 1))
    grown = np.stack([cv2.dilate(shape.astype(np.uint8), disk) for shape in shapes])
    seen = np.count_nonzero(shapes, axis=(1, 2)) >= _MOSTLY * whole
    return bool(seen.all() and grown.sum(axis=0).max() == 1)


def _overlap(shapes: Bools) -> float:
    """Return the largest share of the smaller of two shapes [N, H, W] that lies on the other."""
    return max(
        float(np.count_nonzero(one & other) / max(min(one.sum(), other.sum()), 1))
        for one, other in combinations(shapes, 2)
    )


def _turn_back(motions: Sequence[Motion], shown: Bools) -> bool:
    """Tell whether one turns back in a frame in which its shape [T, N, H, W] lies on another's."""
    times = range(len(shown))
    places = np.array([[one.waves.at(time)[:2] for one in motions] for time in times])
    steps = np.diff(places, axis=0)
    back = (steps[1:] * steps[:-1]).sum(axis=2) <= 0
    shared = shown & (shown.sum(axis=1, keepdims=True) > 1)
    return bool((back & shared.any(axis=(2, 3))[1:-1]).any())


def _pictures(rng: np.random.Generator, objects: _Objects) -> list[Image]:
    """Draw a picture [h, w, 3] for each object, none much like another."""
    pictures: list[Image] = []
    while len(pictures) < len(objects.motions):
        picture = surface(rng, *objects.outline.shape)
        if all(np.abs(picture - other.astype(int)).mean() > _DIFFERENCE for other in pictures):
            pictures.append(picture)
    return pictures


def _film(name: str, filmed: Scene, rng: np.random.Generator) -> AnnotatedClip:
    times = [float(time) for time in range(FRAMES)]
    masks = np.stack([filmed.mask(time) for time in times])
    frames = np.stack([ALMOST_PERFECT.shoot(filmed, time, rng) for time in times])
    points, visible = np.zeros((0, FRAMES, 2), np.float32), np.zeros((0, FRAMES), np.bool_)
    alike = tuple(range(1, len(filmed.layers)))
    return AnnotatedClip(name, frames, points, visible, masks, alike=alike)
