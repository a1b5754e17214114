"""Training clips of four frames: two windows of two frames each.

Within a window everything moves as in video. The second window is either a later moment of the same
motion, or has another camera, light, order and placement of the objects. The position and the
visibility of every point are known in all four frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Bools, Doubles, Floats, Frame, Ints
from vditrack.synthetic.layers.clips import SyntheticClip
from vditrack.synthetic.layers.scenes import Anchors, Layer, Motion, Scene, Waves
from vditrack.synthetic.layers.textures import draw_silhouette
from vditrack_export.tiny.cameras import LitScene, draw_blur_kernel, draw_camera, draw_shade
from vditrack_export.tiny.pictures import Pyramid, draw_picture, make_lookalike

# The parameters of a motion, in the order in which `Waves` holds them.
_X, _Y, _LOG_SCALE, _ANGLE, _SHEAR, _TILT_X, _TILT_Y, _RIPPLE_X, _RIPPLE_Y = range(9)
OBJECTS = (2, 8)
"""The least and the largest number of objects of a scene."""
_CONTINUED = 0.35
"""The share of clips whose second window continues the first."""
_TWINS = 0.25
"""The probability that an object copies the picture of the one before."""
_GONE, _NEW, _RESTACKED = 0.2, 0.2, 0.3
"""The probabilities that an object leaves, that it is new, and that the order changes."""


@dataclass(frozen=True)
class View:
    """A window of a clip: the scene and the order of the clip's layers in it."""

    scene: Scene
    order: Ints
    """The number of the layer at each depth, from the back, [layers]."""
    times: tuple[float, float]
    """The times of its two frames."""

    def from_stack(self, anchors: Anchors) -> Anchors:
        """Return anchors with the clip's numbers of layers in place of depths."""
        return Anchors(self.order[anchors.layer], anchors.surface)

    def to_stack(self, anchors: Anchors) -> Anchors:
        """Return anchors with depths in place of the clip's numbers of layers."""
        return Anchors(np.argsort(self.order)[anchors.layer], anchors.surface)


def make_quadruple(
    rng: np.random.Generator,
    height: int,
    width: int,
    photos: Sequence[Pyramid],
    points: int,
    objects: tuple[int, int] = OBJECTS,
) -> SyntheticClip:
    """Render a clip of four frames; a quarter of the points is picked in each of them.

    Tracks cover all four frames, also while a point is hidden.

    Args:
        rng: the source of all randomness.
        height: the height of the frames, in pixels.
        width: the width of the frames, in pixels.
        photos: the photographs for textures.
        points: the number of points, a multiple of 4.
        objects: the least and the largest number of objects before the backdrop.

    """
    views = draw_views(rng, height, width, photos, objects)
    frames = []
    for view in views:
        camera = draw_camera(rng)
        frames += [camera.shoot(view.scene, time, rng) for time in view.times]
    points_at, visible = track_points(rng, views, points // 4)
    return SyntheticClip(np.stack(frames), points_at, visible, np.repeat(np.arange(4), points // 4))


def track_points(
    rng: np.random.Generator, views: Sequence[View], picked: int
) -> tuple[Floats, Bools]:
    """Pick points in each frame of each view and track them through all frames.

    Args:
        rng: the source of randomness.
        views: the windows.
        picked: the number of points picked in each frame.

    Returns:
        Positions, float32 [N, T, 2] (x, y) in pixels, and visibility, bool [N, T].

    """
    anchored = [
        view.from_stack(view.scene.anchor(_draw_positions(rng, view.scene, picked), time))
        for view in views
        for time in view.times
    ]
    joined = Anchors(
        np.concatenate([anchors.layer for anchors in anchored]),
        np.concatenate([anchors.surface for anchors in anchored]),
    )
    tracks = [view.scene.track(view.to_stack(joined), view.times) for view in views]
    points = np.concatenate([places for places, _ in tracks], axis=1)
    return points, np.concatenate([visible for _, visible in tracks], axis=1)


def draw_views(
    rng: np.random.Generator,
    height: int,
    width: int,
    photos: Sequence[Pyramid],
    objects: tuple[int, int] = OBJECTS,
) -> tuple[View, View]:
    """Draw a backdrop and some objects, and their placement in each of two windows."""
    # Cameras see wider than the model's frame, so what the model sees is squeezed sideways.
    aspect = float(np.exp(rng.uniform(np.log(0.55), np.log(1.15))))
    layers = [_draw_backdrop(rng, height, width, aspect, photos)]
    layers += _draw_objects(rng, (height, width), aspect, photos, objects)
    order = np.arange(len(layers))
    start = float(rng.uniform(0, 1000))
    if rng.random() < _CONTINUED:
        later = start + float(np.exp(rng.uniform(np.log(1), np.log(120))))
        return _draw_view(rng, layers, order, start, (height, width)), _draw_view(
            rng, layers, order, later, (height, width)
        )
    before, after = _film_twice(rng, layers, height, width)
    first = _draw_view(rng, before, order, start, (height, width))
    if rng.random() < _RESTACKED:
        order = np.concatenate([[0], 1 + rng.permutation(len(layers) - 1)])
    return first, _draw_view(rng, after, order, start, (height, width))


def _draw_view(
    rng: np.random.Generator,
    layers: Sequence[Layer],
    order: Ints,
    start: float,
    size: tuple[int, int],
) -> View:
    shade, smear = draw_shade(rng, *size), draw_blur_kernel(rng)
    scene = LitScene(*size, tuple(layers[i] for i in order), shade, smear)
    # The first window of a stream holds its only frame twice.
    step = 0.0 if rng.random() < 0.1 else float(np.exp(rng.uniform(0, np.log(8))))
    return View(scene, order, (start, start + step))


def _draw_positions(rng: np.random.Generator, scene: Scene, count: int) -> Doubles:
    return rng.uniform(0, (scene.width, scene.height), (count, 2))


def _draw_objects(
    rng: np.random.Generator,
    size: tuple[int, int],
    aspect: float,
    photos: Sequence[Pyramid],
    count: tuple[int, int],
) -> list[Layer]:
    height, width = size
    layers: list[Layer] = []
    for _ in range(rng.integers(count[0], count[1] + 1)):
        if layers and rng.random() < _TWINS:
            picture = layers[-1].picture
            if rng.random() < 0.5:
                picture = make_lookalike(rng, picture, photos)
        else:
            picture = _draw_object(rng, float(np.sqrt(height * width)), photos)
        layers.append(Layer(picture, _draw_object_motion(rng, height, width, aspect)))
    return layers


def _draw_backdrop(
    rng: np.random.Generator, height: int, width: int, aspect: float, photos: Sequence[Pyramid]
) -> Layer:
    sides = (round(2.2 * height), round(2.2 * width / aspect))
    picture = np.dstack([draw_picture(rng, *sides, photos), np.full(sides, 255, np.uint8)])
    calm = rng.uniform(0.1, 1.0)
    extent = [0.25 * width, 0.2 * height, 0.2, 0.2, 0.08, 0.25 / width, 0.25 / height, 0.5, 0.5]
    centre = (width / 2, height / 2)
    return Layer(
        picture, _draw_motion(rng, centre, aspect, calm * np.array(extent)), boundless=True
    )


def _draw_object(rng: np.random.Generator, size: float, photos: Sequence[Pyramid]) -> Frame:
    sides = np.exp(rng.uniform(np.log(0.15), np.log(0.75), 2)) * size
    rows, columns = (max(16, round(float(side))) for side in sides)
    return np.dstack(
        [draw_picture(rng, rows, columns, photos), draw_silhouette(rng, rows, columns)]
    )


def _draw_object_motion(rng: np.random.Generator, height: int, width: int, aspect: float) -> Motion:
    centre = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height)
    calm = rng.uniform(0.1, 1.0)
    turn = 1.5 if rng.random() < 0.15 else 0.35
    extent = [0.4 * width, 0.35 * height, 0.3, turn, 0.15, 0.4 / width, 0.4 / height, 3.0, 3.0]
    return _draw_motion(rng, centre, aspect, calm * np.array(extent))


def _draw_motion(
    rng: np.random.Generator, centre: tuple[float, float], aspect: float, extent: Doubles
) -> Motion:
    """Draw a motion about a centre, bounded by ``extent`` in each parameter."""
    if rng.random() < 0.5:
        extent[[_RIPPLE_X, _RIPPLE_Y]] = 0.0
    shape = (len(extent), 2)
    period = np.exp(rng.uniform(np.log(40), np.log(240), shape))
    base = np.zeros(len(extent))
    base[[_X, _Y]] = centre
    waves = Waves(
        base,
        extent[:, None] * rng.uniform(0, 0.6, shape),
        2 * np.pi / period,
        rng.uniform(0, 2 * np.pi, shape),
    )
    across, down = 2 * np.pi / rng.uniform(40, 120, 2)
    phases = rng.uniform(0, 2 * np.pi, 2)
    return Motion(waves, aspect, (float(across), float(down)), (float(phases[0]), float(phases[1])))


def _film_twice(
    rng: np.random.Generator, layers: Sequence[Layer], height: int, width: int
) -> tuple[list[Layer], list[Layer]]:
    """Return the layers as seen from two places; between, objects move, leave and appear."""
    size = np.array([width, height])
    zoom, turn = _draw_zoom(rng), _draw_turn(rng)
    shift = rng.uniform(-0.4, 0.4, 2) * size
    own = rng.uniform(0, 1)
    before, after = [], []
    for layer in layers:
        # Half of the way each: no picture is enlarged or shrunk by much.
        first = _move_camera(layer, -zoom / 2, -turn / 2, -shift / 2, size / 2)
        second = _move_camera(layer, zoom / 2, turn / 2, shift / 2, size / 2)
        if not layer.boundless:
            second = _move_object(second, own * rng.uniform(-1, 1, 4) * (*(0.4 * size), 0.3, 0.4))
            chance = rng.random()
            first = _move_away(first, width) if chance < _NEW else first
            second = _move_away(second, width) if chance > 1 - _GONE else second
        tilt = np.array([0.15, 0.3 / width, 0.3 / height]) * rng.uniform(-1, 1, 3)
        before.append(first)
        after.append(_shift_layer(second, {_SHEAR: tilt[0], _TILT_X: tilt[1], _TILT_Y: tilt[2]}))
    return before, after


def _draw_zoom(rng: np.random.Generator) -> float:
    """Draw the logarithm of a change of scale between 0.5 and 2."""
    return float(rng.uniform(-np.log(2), np.log(2)))


def _draw_turn(rng: np.random.Generator) -> float:
    """Draw an angle up to 45 degrees, and one time in ten any angle, in radians."""
    largest = np.pi if rng.random() < 0.1 else np.pi / 4
    return float(rng.uniform(-largest, largest))


def _move_camera(layer: Layer, zoom: float, turn: float, shift: Doubles, middle: Doubles) -> Layer:
    """Return a layer after the camera zoomed, turned and moved about the frame's centre."""
    cos, sin = np.cos(turn), np.sin(turn)
    offset = layer.motion.waves.base[[_X, _Y]] - middle
    x, y = np.exp(zoom) * np.array([[cos, -sin], [sin, cos]]) @ offset + shift - offset
    return _shift_layer(layer, {_X: x, _Y: y, _LOG_SCALE: zoom, _ANGLE: turn})


def _move_object(layer: Layer, amounts: Doubles) -> Layer:
    parameters = (_X, _Y, _LOG_SCALE, _ANGLE)
    return _shift_layer(layer, dict(zip(parameters, amounts, strict=True)))


def _move_away(layer: Layer, width: int) -> Layer:
    """Return a layer that is far outside the frame, but still in the stack."""
    return _shift_layer(layer, {_X: 10.0 * width})


def _shift_layer(layer: Layer, amounts: Mapping[int, float]) -> Layer:
    waves = layer.motion.waves
    base = waves.base.copy()
    base[list(amounts)] += list(amounts.values())
    return replace(layer, motion=replace(layer.motion, waves=replace(waves, base=base)))
