"""The long benchmark: clips of 250 frames through which points can be tracked from the start.

Over a long time a tracker drifts from its points, and loses and finds them again many times. In
these clips all that happens goes on to the end, so accuracy can be compared over time.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vditrack.arrays import Doubles
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.camera_effects import Camera
from vditrack.synthetic.layers.challenges import (
    SIZE,
    Stage,
    add_ripples,
    draw_centres,
    draw_object,
    draw_surface,
)
from vditrack.synthetic.layers.scenes import Layer, Scene, Waves
from vditrack.synthetic.layers.trajectories import pass_through, stay_at, sway, swing

COUNT = 6
"""Number of clips in the benchmark: two of each kind."""
FRAMES = 250
"""Number of frames of a clip."""

_PICKED = {0: 32, FRAMES // 3: 8}
"""Number of points picked, by the frame in which they are picked."""
_SLOW = (90.0, 240.0)
"""Shortest and longest period of a slow motion, in frames."""
_ROAMING = (0.45, 0.65)
"""Shortest and longest way of a roaming camera from its start, as a share of the frame's side."""
_NOISE = (1.0, 4.0)
"""Lowest and highest standard deviation of the camera's noise, in grey levels."""
_ZOOM = 0.15
"""Largest change of the logarithm of the backdrop's scale."""
_SPARE = 1.1
"""Extent of a backdrop's picture, as a multiple of what its motion shows at most."""


def render_long(seed: int) -> Iterator[AnnotatedClip]:
    """Render the clips of the benchmark, one at a time.

    A clip has 250 frames of 256 x 256 pixels and the tracks of 40 points, 32 of them picked in the
    first frame, whose positions are exact outside the frame and behind objects too. Its name starts
    with its kind: deforming, passing or roaming. The same seed (0 or more) and versions of NumPy
    and OpenCV give the same bytes.
    """
    for number in range(COUNT):
        yield render_stage(get_clip_name(number), *draw_stage(seed, number))


def get_clip_name(number: int) -> str:
    """Return the name of clip ``number``, which starts with its kind."""
    return f"{list(KINDS)[number % len(KINDS)]}-{number:02}"


def draw_stage(seed: int, number: int) -> tuple[Stage, np.random.Generator]:
    """Draw the stage of clip ``number``, and return it with the generator for rendering it.

    Each clip has its own random stream, independent of the other clips.
    """
    rng = np.random.default_rng([seed, number, 3])
    build = list(KINDS.values())[number % len(KINDS)]
    return build(rng), rng


def render_stage(name: str, stage: Stage, rng: np.random.Generator) -> AnnotatedClip:
    """Render a clip of a stage; points are picked in the first frame and in a later one."""
    scene = stage.scene
    times = [float(time) for time in range(FRAMES)]
    joined = stage.pick_points(rng, _PICKED)
    points, visible = scene.track(joined, times)
    frames = np.empty((FRAMES, scene.height, scene.width, 3), np.uint8)
    for index, time in enumerate(times):
        frames[index] = stage.camera.shoot(scene, time, rng)
    return AnnotatedClip(name, frames, points, visible, known_outside=True)


def _draw_deforming(rng: np.random.Generator) -> Stage:
    """Draw objects that turn, stretch and ripple all the time over a backdrop that sways."""
    tilt = 0.15 / SIZE
    objects = []
    for x, y in draw_centres(rng, 4):
        affine = sway(rng, _SLOW, x=30, y=30, log_scale=0.25, angle=0.9, shear=0.15)
        bent = sway(rng, _SLOW, tilt_x=tilt, tilt_y=tilt, ripple_x=4, ripple_y=4)
        objects.append(draw_object(rng, rng.uniform(70, 110, 2), stay_at(x, y) + affine + bent))
    return _make_stage(rng, _draw_sway(rng), objects, share=0.6)


def _draw_passing(rng: np.random.Generator) -> Stage:
    """Draw two bars that cross the frame again and again, and hide each point for a while."""
    objects = [
        draw_object(rng, rng.uniform(60, 90, 2), stay_at(x, y) + _wander(rng, 15))
        for x, y in draw_centres(rng, 3)
    ]
    heading = rng.uniform(0, 2 * np.pi)
    turn = rng.choice([-1, 1]) * rng.uniform(1.2, 1.9)
    # Each bar passes every 100 to 135 frames, and the second between two passes of the first.
    bars = [_draw_bar(rng, heading, 40.0), _draw_bar(rng, heading + turn, 95.0)]
    return _make_stage(rng, _draw_sway(rng), objects + bars, share=0.4)


def _draw_roaming(rng: np.random.Generator) -> Stage:
    """Draw a camera that looks around: most of what it saw first is out of view for a while."""
    across, down = rng.choice([-1, 1], 2) * rng.uniform(*_ROAMING, 2) * SIZE
    rates = 2 * np.pi / np.array([rng.uniform(110, 140), rng.uniform(150, 200)])
    objects = []
    for x, y in draw_centres(rng, 4):
        nearness = rng.uniform(1.05, 1.25)
        shown = stay_at(x, y) + _look_around(rates, nearness * across, nearness * down)
        objects.append(draw_object(rng, rng.uniform(60, 90, 2), shown + _wander(rng, 8)))
    turned = sway(rng, _SLOW, log_scale=_ZOOM, angle=0.25)
    return _make_stage(rng, _look_around(rates, across, down) + turned, objects, share=0.4)


def _look_around(rates: Doubles, across: float, down: float) -> Waves:
    """Return a path to all sides that starts in the middle, by two angular frequencies [2]."""
    sideways, upward = rates.tolist()
    return swing(sideways, 0.0, x=across) + swing(upward, 0.0, y=down)


def _draw_bar(rng: np.random.Generator, heading: float, moment: float) -> Layer:
    """Draw a bar that first crosses the frame at ``moment`` and hides a point for 12 to 22 frames.

    It comes back, and crosses again.
    """
    speed, hidden = rng.uniform(6, 7), rng.uniform(12, 22)
    sides = np.array([rng.uniform(150, 190), hidden * speed])
    middle = (SIZE / 2 + rng.uniform(-20, 20), SIZE / 2 + rng.uniform(-20, 20))
    # Beyond the corners of the frame.
    reach = 0.87 * SIZE
    return draw_object(rng, sides, pass_through(middle, moment, heading, speed, reach))


def _draw_sway(rng: np.random.Generator) -> Waves:
    return sway(rng, _SLOW, x=12, y=12, log_scale=0.06, angle=0.08, ripple_x=1, ripple_y=1)


def _wander(rng: np.random.Generator, extent: float) -> Waves:
    return sway(rng, _SLOW, x=extent, y=extent, log_scale=0.1, angle=0.3, shear=0.05)


def _make_stage(
    rng: np.random.Generator, path: Waves, objects: list[Layer], *, share: float
) -> Stage:
    """Return a stage of objects over a backdrop that moves by ``path`` around the frame's centre.

    A picture is mirrored beyond its edges, and there a point would have a double. So it is larger
    than all that the frame shows of it.
    """
    motion = add_ripples(rng, stay_at(SIZE / 2, SIZE / 2) + path)
    corners = np.array([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)], np.float64)
    seen = [motion.inverse(corners, float(time)) for time in range(FRAMES)]
    columns, rows = (2 * _SPARE * np.abs(seen).max(axis=(0, 1))).astype(int)
    opaque = np.full((rows, columns), 255, np.uint8)
    backdrop = Layer(
        np.dstack([draw_surface(rng, int(rows), int(columns)), opaque]), motion, boundless=True
    )
    scene = Scene(SIZE, SIZE, (backdrop, *objects))
    return Stage(scene, _draw_camera(rng), share)


def _draw_camera(rng: np.random.Generator) -> Camera:
    """Draw a camera with slight noise, under light that changes slowly."""
    # Gamma, contrast, brightness and three gains, in the order of `Camera.light`.
    extent = np.array([0.2, 0.15, 0.05, 0.06, 0.06, 0.06])[:, None]
    light = Waves(
        base=np.zeros(len(extent)),
        amplitude=extent * rng.uniform(0.5, 1.0, extent.shape),
        rate=2 * np.pi / rng.uniform(*_SLOW, extent.shape),
        phase=rng.uniform(0, 2 * np.pi, extent.shape),
    )
    noise = float(rng.uniform(*_NOISE))
    return Camera(light, shutter=0.0, noise=noise, blur=0.0, coarseness=0.0, jpeg_quality=None)


KINDS: Mapping[str, Callable[[np.random.Generator], Stage]] = {
    "deforming": _draw_deforming,
    "passing": _draw_passing,
    "roaming": _draw_roaming,
}
"""Functions that draw a stage, by the name of the kind."""
