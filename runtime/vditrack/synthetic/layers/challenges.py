"""Scenes that are hard for one reason each, by construction.

Every kind is a function of a random generator; sizes and speeds are chosen so that the phenomenon
takes place within a clip of `FRAMES` frames whatever is drawn.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vditrack.synthetic.layers.camera_effects import PERFECT, Camera
from vditrack.synthetic.layers.scenes import Layer, Motion, Scene, Waves
from vditrack.synthetic.layers.textures import blob, grained, pattern
from vditrack.synthetic.layers.trajectories import crossing, resting, sway, swing

Image = NDArray[np.uint8]

SIZE = 256
"""Height and width of the frames, in pixels."""
FRAMES = 48

_MIDDLE = SIZE / 2
CALM = (60.0, 120.0)
"""Shortest and longest period of a calm sway, in frames."""
ALMOST_PERFECT = replace(PERFECT, noise=2.0)


@dataclass(frozen=True)
class Stage:
    """A scene and the camera that films it."""

    scene: Scene
    camera: Camera
    share: float
    """Of the points to follow, how many lie on objects and not on the backdrop."""


def drift(rng: np.random.Generator) -> Stage:
    """Objects that turn, stretch and ripple over a backdrop that hardly moves."""
    objects = [
        _object(rng, rng.uniform(70, 110, 2), resting(x, y) + _deforming(rng))
        for x, y in _spread(rng, 4)
    ]
    return Stage(_scene(backdrop(rng, _breathing(rng)), objects), ALMOST_PERFECT, share=0.6)


def occlusion(rng: np.random.Generator) -> Stage:
    """Two bars sweep over everything, one after the other, and hide each point for some frames."""
    behind = [
        _object(rng, rng.uniform(60, 90, 2), resting(x, y) + _wandering(rng, 12))
        for x, y in _spread(rng, 3)
    ]
    heading = rng.uniform(0, 2 * np.pi)
    turn = rng.choice([-1, 1]) * rng.uniform(1.2, 1.9)
    bars = [_bar(rng, heading, FRAMES / 3), _bar(rng, heading + turn, FRAMES * 2 / 3)]
    behind_all = backdrop(rng, _breathing(rng))
    return Stage(_scene(behind_all, behind + bars), ALMOST_PERFECT, share=0.4)


def leaving(rng: np.random.Generator) -> Stage:
    """Pan away and back again, objects in front a little further than the backdrop."""
    # Back where it started some frames before the end.
    rate = np.pi / rng.uniform(36, 42)
    across = rng.choice([-1, 1]) * rng.uniform(0.38, 0.5) * SIZE
    down = rng.choice([-1, 1]) * rng.uniform(0.1, 0.2) * SIZE
    pan = {"x": across, "y": down}
    objects = []
    for x, y in _spread(rng, 4):
        nearness = rng.uniform(1.05, 1.25)
        panned = swing(rate, 0.0, **{axis: nearness * way for axis, way in pan.items()})
        path = resting(x, y) + panned + _wandering(rng, 8)
        objects.append(_object(rng, rng.uniform(60, 90, 2), path))
    panned_past = backdrop(rng, _breathing(rng) + swing(rate, 0.0, **pan))
    return Stage(_scene(panned_past, objects), ALMOST_PERFECT, share=0.4)


def blur_and_light(rng: np.random.Generator) -> Stage:
    """A shaken, noisy camera with a long exposure under light that comes and goes."""
    shaken = sway(rng, (24, 36), x=24, y=18, angle=0.06)
    objects = [
        _object(rng, rng.uniform(70, 100, 2), resting(x, y) + _wandering(rng, 25) + shaken)
        for x, y in _spread(rng, 3)
    ]
    camera = Camera(
        light=_changing_light(rng),
        shutter=rng.uniform(0.6, 0.9),
        noise=rng.uniform(5, 9),
        blur=rng.uniform(0.5, 0.9),
        coarseness=0.0,
        jpeg_quality=None,
        exposures=5,
    )
    return Stage(_scene(backdrop(rng, _breathing(rng) + shaken), objects), camera, share=0.5)


def lookalikes(rng: np.random.Generator) -> Stage:
    """Two to four objects with one picture, carried round a flat loop through one another."""
    count = int(rng.integers(2, 5))
    first = _object(rng, rng.uniform(1.0, 1.2, 2) * 100 / np.sqrt(count), resting(0, 0))
    rate = 2 * np.pi / rng.uniform(44, 56)
    # All start clear of each other: seen from the side, even and odd numbers need another start.
    start = rng.uniform(-0.1, 0.1) + (np.pi / (2 * count) if count % 2 == 0 else 0.0)
    tilt = rng.uniform(-0.5, 0.5)
    paths = [
        _round_trip(rate, start + turn, tilt) + _wandering(rng, 3)
        for turn in 2 * np.pi * np.arange(count) / count
    ]
    alike = [replace(first, motion=bent(rng, path)) for path in paths]
    return Stage(_scene(backdrop(rng, _breathing(rng)), alike), ALMOST_PERFECT, share=0.8)


KINDS: Mapping[str, Callable[[np.random.Generator], Stage]] = {
    "drift": drift,
    "occlusion": occlusion,
    "leaving": leaving,
    "blur-and-light": blur_and_light,
    "lookalikes": lookalikes,
}


def backdrop(rng: np.random.Generator, path: Waves) -> Layer:
    """Draw a boundless layer that moves by ``path`` about the middle of the frame."""
    # So large that its mirrored continuation stays out of view.
    side = round(2.2 * SIZE)
    opaque = np.full((side, side), 255, np.uint8)
    picture = np.dstack([surface(rng, side, side), opaque])
    return Layer(picture, bent(rng, resting(_MIDDLE, _MIDDLE) + path), boundless=True)


def surface(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw a picture ``uint8 [height, width, 3]`` without a blank place."""
    return grained(rng, pattern(rng, height, width), strength=40)


def bent(rng: np.random.Generator, path: Waves) -> Motion:
    """Move by ``path``, its ripples drawn at random."""
    across, down = 2 * np.pi / rng.uniform(60, 120, 2)
    phases = rng.uniform(0, 2 * np.pi, 2)
    return Motion(path, 1.0, (float(across), float(down)), (float(phases[0]), float(phases[1])))


def _scene(behind: Layer, objects: list[Layer]) -> Scene:
    return Scene(SIZE, SIZE, (behind, *objects))


def _object(rng: np.random.Generator, sides: NDArray[np.float64], path: Waves) -> Layer:
    height, width = (round(side) for side in sides)
    picture = np.dstack([surface(rng, height, width), blob(rng, height, width)])
    return Layer(picture, bent(rng, path))


def _bar(rng: np.random.Generator, heading: float, moment: float) -> Layer:
    """Draw an object that sweeps broadside, narrow enough to hide a point for a short while."""
    speed = rng.uniform(7, 9)
    hidden = rng.uniform(9, 13)
    sides = np.array([rng.uniform(150, 190), hidden * speed])
    middle = (_MIDDLE + rng.uniform(-20, 20), _MIDDLE + rng.uniform(-20, 20))
    return _object(rng, sides, crossing(middle, moment, heading, speed, reach=1.5 * SIZE))


def _breathing(rng: np.random.Generator) -> Waves:
    return sway(rng, CALM, x=6, y=6, log_scale=0.03, angle=0.03, ripple_x=1, ripple_y=1)


def _wandering(rng: np.random.Generator, extent: float) -> Waves:
    return sway(rng, CALM, x=extent, y=extent, log_scale=0.06, angle=0.15, shear=0.05)


def _deforming(rng: np.random.Generator) -> Waves:
    tilt = 0.15 / SIZE
    affine = sway(rng, CALM, x=30, y=30, log_scale=0.2, angle=0.5, shear=0.15)
    return affine + sway(rng, CALM, tilt_x=tilt, tilt_y=tilt, ripple_x=4, ripple_y=4)


def _round_trip(rate: float, phase: float, tilt: float) -> Waves:
    """Go round a flat ellipse about the middle, its long axis at ``tilt`` radians."""
    long, short = 0.36 * SIZE, 0.04 * SIZE
    along = swing(rate, phase, x=long * np.cos(tilt), y=long * np.sin(tilt))
    aside = swing(rate, phase + np.pi / 2, x=-short * np.sin(tilt), y=short * np.cos(tilt))
    return resting(_MIDDLE, _MIDDLE) + along + aside


def _spread(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw ``count <= 4`` places ``[count, 2]``, each in a quarter of the frame of its own."""
    quarters = rng.permutation([(1, 1), (1, 3), (3, 1), (3, 3)])[:count]
    return np.asarray((quarters + rng.uniform(-0.3, 0.3, (count, 2))) * SIZE / 4)


def _changing_light(rng: np.random.Generator) -> Waves:
    # Gamma, contrast, brightness and three gains, as the camera reads them.
    extent = np.array([0.4, 0.25, 0.08, 0.1, 0.1, 0.1])[:, None]
    return Waves(
        base=np.zeros(len(extent)),
        amplitude=extent * rng.uniform(0.7, 1.0, extent.shape),
        rate=2 * np.pi / rng.uniform(0.6 * FRAMES, FRAMES, extent.shape),
        phase=rng.uniform(0, 2 * np.pi, extent.shape),
    )
