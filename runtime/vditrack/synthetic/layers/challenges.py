"""Draws scenes that each contain one difficulty.

Each kind of scene is a function of a random generator. Sizes and speeds are chosen so that the
difficulty occurs within a clip of `FRAMES` frames for every seed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Doubles, Image
from vditrack.synthetic.layers.camera_effects import PERFECT, Camera
from vditrack.synthetic.layers.scenes import Anchors, Layer, Motion, Scene, Waves
from vditrack.synthetic.layers.textures import add_grain, draw_pattern, draw_silhouette
from vditrack.synthetic.layers.trajectories import pass_through, stay_at, sway, swing
from vditrack.synthetic.point_sampling import pick_pixels

SIZE = 256
"""Height and width of the frames, in pixels."""
FRAMES = 48
"""Number of frames of a clip."""

_MIDDLE = SIZE / 2
CALM = (60.0, 120.0)
"""Shortest and longest period of a slow motion, in frames."""
ALMOST_PERFECT = replace(PERFECT, noise=2.0)
"""A camera with slight noise and no other imperfection."""


@dataclass(frozen=True)
class Stage:
    """A scene, the camera that films it, and where its points are picked."""

    scene: Scene
    """The scene."""
    camera: Camera
    """The camera."""
    share: float
    """Share of the points that lie on objects; the others lie on the backdrop."""

    def pick_points(self, rng: np.random.Generator, picked: Mapping[int, int]) -> Anchors:
        """Pick points in the interior of what some frames show, at random places of their pixels.

        Args:
            rng: the source of randomness.
            picked: the number of points by the frame in which they are picked.

        """
        anchors = []
        for frame, count in picked.items():
            mask = self.scene.mask(float(frame))
            positions = pick_pixels(rng, mask, mask > 0, count, self.share)
            positions += rng.uniform(-0.5, 0.5, positions.shape)
            anchors.append(self.scene.anchor(positions, float(frame)))
        return Anchors(
            np.concatenate([a.layer for a in anchors]), np.concatenate([a.surface for a in anchors])
        )


def draw_drift(rng: np.random.Generator) -> Stage:
    """Draw objects that rotate, stretch and ripple over a backdrop that moves slightly."""
    objects = [
        draw_object(rng, rng.uniform(70, 110, 2), stay_at(x, y) + _deform(rng))
        for x, y in draw_centres(rng, 4)
    ]
    return Stage(
        _make_scene(draw_backdrop(rng, _sway_slightly(rng)), objects), ALMOST_PERFECT, share=0.6
    )


def draw_occlusion(rng: np.random.Generator) -> Stage:
    """Draw two bars that cross the frame in turn and hide each point for some frames."""
    behind = [
        draw_object(rng, rng.uniform(60, 90, 2), stay_at(x, y) + _wander(rng, 12))
        for x, y in draw_centres(rng, 3)
    ]
    heading = rng.uniform(0, 2 * np.pi)
    turn = rng.choice([-1, 1]) * rng.uniform(1.2, 1.9)
    bars = [_draw_bar(rng, heading, FRAMES / 3), _draw_bar(rng, heading + turn, FRAMES * 2 / 3)]
    behind_all = draw_backdrop(rng, _sway_slightly(rng))
    return Stage(_make_scene(behind_all, behind + bars), ALMOST_PERFECT, share=0.4)


def draw_leaving(rng: np.random.Generator) -> Stage:
    """Draw a pan away and back, in which objects move slightly further than the backdrop."""
    # The pan returns some frames before the clip ends.
    rate = np.pi / rng.uniform(36, 42)
    across = rng.choice([-1, 1]) * rng.uniform(0.38, 0.5) * SIZE
    down = rng.choice([-1, 1]) * rng.uniform(0.1, 0.2) * SIZE
    pan = {"x": across, "y": down}
    objects = []
    for x, y in draw_centres(rng, 4):
        nearness = rng.uniform(1.05, 1.25)
        panned = swing(rate, 0.0, **{axis: nearness * way for axis, way in pan.items()})
        path = stay_at(x, y) + panned + _wander(rng, 8)
        objects.append(draw_object(rng, rng.uniform(60, 90, 2), path))
    panned_past = draw_backdrop(rng, _sway_slightly(rng) + swing(rate, 0.0, **pan))
    return Stage(_make_scene(panned_past, objects), ALMOST_PERFECT, share=0.4)


def draw_blur_and_light(rng: np.random.Generator) -> Stage:
    """Draw a shaken, noisy camera with a long exposure under changing light."""
    shaken = sway(rng, (24, 36), x=24, y=18, angle=0.06)
    objects = [
        draw_object(rng, rng.uniform(70, 100, 2), stay_at(x, y) + _wander(rng, 25) + shaken)
        for x, y in draw_centres(rng, 3)
    ]
    camera = Camera(
        light=_draw_light(rng),
        shutter=rng.uniform(0.6, 0.9),
        noise=rng.uniform(5, 9),
        blur=rng.uniform(0.5, 0.9),
        coarseness=0.0,
        jpeg_quality=None,
        exposures=5,
    )
    return Stage(
        _make_scene(draw_backdrop(rng, _sway_slightly(rng) + shaken), objects), camera, share=0.5
    )


def draw_lookalikes(rng: np.random.Generator) -> Stage:
    """Draw two to four objects with the same picture that circle a flat ellipse and cross."""
    count = int(rng.integers(2, 5))
    first = draw_object(rng, rng.uniform(1.0, 1.2, 2) * 100 / np.sqrt(count), stay_at(0, 0))
    rate = 2 * np.pi / rng.uniform(44, 56)
    # No two objects overlap at the start; the phase for that depends on the parity of the count.
    start = rng.uniform(-0.1, 0.1) + (np.pi / (2 * count) if count % 2 == 0 else 0.0)
    tilt = rng.uniform(-0.5, 0.5)
    paths = [
        _circle_ellipse(rate, start + turn, tilt) + _wander(rng, 3)
        for turn in 2 * np.pi * np.arange(count) / count
    ]
    alike = [replace(first, motion=add_ripples(rng, path)) for path in paths]
    return Stage(
        _make_scene(draw_backdrop(rng, _sway_slightly(rng)), alike), ALMOST_PERFECT, share=0.8
    )


KINDS: Mapping[str, Callable[[np.random.Generator], Stage]] = {
    "drift": draw_drift,
    "occlusion": draw_occlusion,
    "leaving": draw_leaving,
    "blur-and-light": draw_blur_and_light,
    "lookalikes": draw_lookalikes,
}
"""Functions that draw a stage, by the name of the kind."""


def draw_backdrop(rng: np.random.Generator, path: Waves) -> Layer:
    """Draw a boundless layer that moves by ``path`` around the centre of the frame."""
    # Large enough that the mirrored continuation stays out of view.
    side = round(2.2 * SIZE)
    opaque = np.full((side, side), 255, np.uint8)
    picture = np.dstack([draw_surface(rng, side, side), opaque])
    return Layer(picture, add_ripples(rng, stay_at(_MIDDLE, _MIDDLE) + path), boundless=True)


def draw_surface(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw a picture, uint8 [height, width, 3], without regions that lack texture."""
    return add_grain(rng, draw_pattern(rng, height, width), strength=40)


def add_ripples(rng: np.random.Generator, path: Waves) -> Motion:
    """Return a motion along ``path`` with ripples of random wavelength and phase."""
    across, down = 2 * np.pi / rng.uniform(60, 120, 2)
    phases = rng.uniform(0, 2 * np.pi, 2)
    return Motion(path, 1.0, (float(across), float(down)), (float(phases[0]), float(phases[1])))


def _make_scene(behind: Layer, objects: list[Layer]) -> Scene:
    return Scene(SIZE, SIZE, (behind, *objects))


def draw_object(rng: np.random.Generator, sides: Doubles, path: Waves) -> Layer:
    """Draw an object of ``sides`` (height, width) in pixels with a random outline along a path."""
    height, width = (round(side) for side in sides)
    picture = np.dstack([draw_surface(rng, height, width), draw_silhouette(rng, height, width)])
    return Layer(picture, add_ripples(rng, path))


def _draw_bar(rng: np.random.Generator, heading: float, moment: float) -> Layer:
    """Draw a bar that crosses the frame at ``moment`` and hides a point for 9 to 13 frames."""
    speed = rng.uniform(7, 9)
    hidden = rng.uniform(9, 13)
    sides = np.array([rng.uniform(150, 190), hidden * speed])
    middle = (_MIDDLE + rng.uniform(-20, 20), _MIDDLE + rng.uniform(-20, 20))
    return draw_object(rng, sides, pass_through(middle, moment, heading, speed, reach=1.5 * SIZE))


def _sway_slightly(rng: np.random.Generator) -> Waves:
    return sway(rng, CALM, x=6, y=6, log_scale=0.03, angle=0.03, ripple_x=1, ripple_y=1)


def _wander(rng: np.random.Generator, extent: float) -> Waves:
    return sway(rng, CALM, x=extent, y=extent, log_scale=0.06, angle=0.15, shear=0.05)


def _deform(rng: np.random.Generator) -> Waves:
    tilt = 0.15 / SIZE
    affine = sway(rng, CALM, x=30, y=30, log_scale=0.2, angle=0.5, shear=0.15)
    return affine + sway(rng, CALM, tilt_x=tilt, tilt_y=tilt, ripple_x=4, ripple_y=4)


def _circle_ellipse(rate: float, phase: float, tilt: float) -> Waves:
    """Return a path on a flat ellipse around the centre, its long axis at ``tilt`` radians."""
    long, short = 0.36 * SIZE, 0.04 * SIZE
    along = swing(rate, phase, x=long * np.cos(tilt), y=long * np.sin(tilt))
    aside = swing(rate, phase + np.pi / 2, x=-short * np.sin(tilt), y=short * np.cos(tilt))
    return stay_at(_MIDDLE, _MIDDLE) + along + aside


def draw_centres(rng: np.random.Generator, count: int) -> Doubles:
    """Draw up to four centres, float64 [count, 2], each in another quarter of the frame."""
    quarters = rng.permutation([(1, 1), (1, 3), (3, 1), (3, 3)])[:count]
    return np.asarray((quarters + rng.uniform(-0.3, 0.3, (count, 2))) * SIZE / 4)


def _draw_light(rng: np.random.Generator) -> Waves:
    # Gamma, contrast, brightness and three gains, in the order of `Camera.light`.
    extent = np.array([0.4, 0.25, 0.08, 0.1, 0.1, 0.1])[:, None]
    return Waves(
        base=np.zeros(len(extent)),
        amplitude=extent * rng.uniform(0.7, 1.0, extent.shape),
        rate=2 * np.pi / rng.uniform(0.6 * FRAMES, FRAMES, extent.shape),
        phase=rng.uniform(0, 2 * np.pi, extent.shape),
    )
