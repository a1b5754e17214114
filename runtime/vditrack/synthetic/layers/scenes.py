"""Synthetic scenes whose motion is known exactly: layers of pictures that move and deform.

A layer is a picture with a silhouette. A point of its surface, ``u`` in picture pixels from the
picture's centre, is seen at time ``t`` (in frames) at

    p = H(t) · R(u, t)

where ``R`` ripples the surface by two shears and ``H`` is a homography. Both have a closed-form
inverse; the renderer uses the inverse and the tracks use the forward map of the same motion.
Positions are in pixels, (0, 0) the upper-left corner of the upper-left pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles
from vditrack.synthetic.layers.textures import blob, texture

Image = NDArray[np.uint8]

# The parameters of a motion, in the order in which `Waves` holds them.
_X, _Y, _LOG_SCALE, _ANGLE, _SHEAR, _TILT_X, _TILT_Y, _RIPPLE_X, _RIPPLE_Y = range(9)


@dataclass(frozen=True)
class Waves:
    """Parameters that change smoothly for ever: a sum of sines each.

    ``base`` is ``[P]``; ``amplitude``, ``rate`` (radians a frame) and ``phase`` are ``[P, K]``.
    """

    base: Doubles
    amplitude: Doubles
    rate: Doubles
    phase: Doubles

    def __add__(self, other: "Waves") -> "Waves":
        """Join two changes of the same parameters into one."""
        return Waves(
            self.base + other.base,
            np.hstack([self.amplitude, other.amplitude]),
            np.hstack([self.rate, other.rate]),
            np.hstack([self.phase, other.phase]),
        )

    def at(self, time: float) -> Doubles:
        """Return the parameters ``[P]`` at ``time``."""
        swing = self.amplitude * np.sin(self.rate * time + self.phase)
        return np.asarray(self.base + swing.sum(axis=1))


@dataclass(frozen=True)
class Motion:
    """How a layer's surface lies in the frame: a ripple, then a homography."""

    waves: Waves
    aspect: float
    ripple_rate: tuple[float, float]
    ripple_phase: tuple[float, float]

    def forward(self, surface: Doubles, time: float) -> Doubles:
        """Map surface points ``[..., 2]`` to frame positions ``[..., 2]``."""
        pose = self.waves.at(time)
        x, y = surface[..., 0], surface[..., 1]
        x = x + pose[_RIPPLE_X] * np.sin(self.ripple_rate[0] * y + self.ripple_phase[0])
        y = y + pose[_RIPPLE_Y] * np.sin(self.ripple_rate[1] * x + self.ripple_phase[1])
        return _project(self._homography(pose), x, y)

    def inverse(self, position: Doubles, time: float) -> Doubles:
        """Map frame positions ``[..., 2]`` to the surface points ``[..., 2]`` seen there."""
        pose = self.waves.at(time)
        back = np.linalg.inv(self._homography(pose)).astype(position.dtype)
        surface = _project(back, position[..., 0], position[..., 1])
        x, y = surface[..., 0], surface[..., 1]
        if pose[_RIPPLE_Y]:
            y -= pose[_RIPPLE_Y] * np.sin(self.ripple_rate[1] * x + self.ripple_phase[1])
        if pose[_RIPPLE_X]:
            x -= pose[_RIPPLE_X] * np.sin(self.ripple_rate[0] * y + self.ripple_phase[0])
        return surface

    def _homography(self, pose: Doubles) -> Doubles:
        cos, sin = np.cos(pose[_ANGLE]), np.sin(pose[_ANGLE])
        turn = np.exp(pose[_LOG_SCALE]) * np.array([[cos, -sin], [sin, cos]])
        linear = np.diag([self.aspect, 1.0]) @ turn @ np.array([[1.0, pose[_SHEAR]], [0.0, 1.0]])
        centre = pose[[_X, _Y]]
        tilt = pose[[_TILT_X, _TILT_Y]]
        # The tilt acts about the layer's centre, which therefore stays where the waves put it.
        return np.block([[linear + np.outer(centre, tilt), centre[:, None]], [tilt, 1.0]])


def _project(homography: Doubles, x: Doubles, y: Doubles) -> Doubles:
    (a, b, c), (d, e, f), (g, h, i) = homography
    depth = g * x + h * y + i
    return np.stack([(a * x + b * y + c) / depth, (d * x + e * y + f) / depth], axis=-1)


@dataclass(frozen=True)
class Layer:
    """A moving picture: ``uint8 [h, w, 4]`` RGBA, opaque inside its silhouette.

    A ``boundless`` layer is opaque everywhere and mirrored beyond its edges.
    """

    picture: Image
    motion: Motion
    boundless: bool = False

    def seen(self, positions: NDArray[np.floating], time: float) -> Image:
        """Return the RGBA colours ``uint8 [..., 4]`` seen at frame positions ``[..., 2]``."""
        surface = self.motion.inverse(np.asarray(positions), time)
        height, width = self.picture.shape[:2]
        # remap counts from the centre of the first pixel.
        columns = (surface[..., 0] + (width - 1) / 2).astype(np.float32)
        rows = (surface[..., 1] + (height - 1) / 2).astype(np.float32)
        border = cv2.BORDER_REFLECT_101 if self.boundless else cv2.BORDER_CONSTANT
        picked = cv2.remap(self.picture, columns, rows, cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(picked, dtype=np.uint8)

    def covers(self, positions: Doubles, time: float) -> NDArray[np.bool_]:
        """Tell at which positions ``[N, 2]`` the layer hides what lies behind it."""
        if len(positions) == 0:
            return np.zeros(0, dtype=bool)
        covered: NDArray[np.bool_] = self.seen(positions[:, None], time)[:, 0, 3] >= 128
        return covered

    def silhouette(self, time: float, height: int, width: int) -> NDArray[np.bool_]:
        """Return ``bool [H, W]``, the pixels whose centres it covers, seen or hidden there."""
        shown = np.zeros((height, width), np.bool_)
        box = self.box(time, height, width)
        if shown[box].size:
            centres = _pixel_centres(height, width)[box]
            shown[box] = self.seen(centres, time)[..., 3] >= 128
        return shown

    def box(self, time: float, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns of the frame outside which nothing of the layer is seen."""
        if self.boundless:
            return slice(0, height), slice(0, width)
        half = np.array(self.picture.shape[1::-1]) / 2
        side = np.linspace(-1, 1, 9)
        ones = np.ones_like(side)
        edges = ((side, ones), (side, -ones), (ones, side), (-ones, side))
        border = np.concatenate([np.stack(edge, axis=-1) for edge in edges])
        outline = self.motion.forward(border * half, time)
        left, top = np.floor(outline.min(axis=0)).astype(int) - 1
        right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 1
        return slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))


@dataclass(frozen=True)
class Anchors:
    """Points fixed to surfaces: the index of the layer ``[N]`` and the place on it ``[N, 2]``."""

    layer: NDArray[np.int64]
    surface: Doubles


@dataclass(frozen=True)
class Scene:
    """Layers from the back to the front, the first of them boundless."""

    height: int
    width: int
    layers: tuple[Layer, ...]

    def render(self, time: float) -> Image:
        """Return the frame ``uint8 [H, W, 3]`` seen at ``time``."""
        centres = _pixel_centres(self.height, self.width)
        frame = np.zeros((self.height, self.width, 3), np.float32)
        for layer in self.layers:
            box = layer.box(time, self.height, self.width)
            if frame[box].size:
                seen = layer.seen(centres[box], time).astype(np.float32)
                frame[box] += (seen[..., :3] - frame[box]) * (seen[..., 3:] / 255)
        return (frame + 0.5).astype(np.uint8)

    def mask(self, time: float) -> Image:
        """Return ``uint8 [H, W]``, the index of the layer seen at each pixel's centre."""
        top = np.zeros((self.height, self.width), np.uint8)
        for index, layer in enumerate(self.layers[1:], start=1):
            top[layer.silhouette(time, self.height, self.width)] = index
        return top

    def top_layers(self, positions: Doubles, time: float) -> NDArray[np.int64]:
        """Return the index of the layer seen at each of ``positions [N, 2]``."""
        top = np.zeros(len(positions), np.int64)
        for index, layer in enumerate(self.layers[1:], start=1):
            top[layer.covers(positions, time)] = index
        return top

    def anchor(self, positions: Doubles, time: float) -> Anchors:
        """Fix what is seen at ``positions [N, 2]`` at ``time`` to the surface it lies on."""
        layer = self.top_layers(positions, time)
        surface = np.empty_like(positions, dtype=np.float64)
        for index in np.unique(layer):
            mine = layer == index
            surface[mine] = self.layers[index].motion.inverse(positions[mine], time)
        return Anchors(layer, surface)

    def track(
        self, anchors: Anchors, times: Sequence[float]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return where the anchors are, ``[N, T, 2]``, and whether they are seen, ``[N, T]``.

        A point is seen when it is inside the frame and no layer in front covers it.
        """
        count = len(anchors.layer)
        points = np.empty((count, len(times), 2), np.float64)
        for index in np.unique(anchors.layer):
            mine = anchors.layer == index
            for step, time in enumerate(times):
                points[mine, step] = self.layers[index].motion.forward(anchors.surface[mine], time)
        inside = (points >= 0) & (points < (self.width, self.height))
        visible: NDArray[np.bool_] = np.logical_and(inside[..., 0], inside[..., 1])
        for step, time in enumerate(times):
            for index, layer in enumerate(self.layers):
                behind = visible[:, step] & (anchors.layer < index)
                visible[behind, step] = ~layer.covers(points[behind, step], time)
        return points.astype(np.float32), visible


def _pixel_centres(height: int, width: int) -> NDArray[np.float32]:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=-1).astype(np.float32)


def random_scene(
    rng: np.random.Generator, height: int, width: int, photos: Sequence[Image] = ()
) -> Scene:
    """Draw a scene: a backdrop under a moving camera, and one to six shapes over it."""
    size = float(np.sqrt(height * width))
    # Cameras see wider than the model's frame, so what the model sees is squeezed sideways.
    aspect = float(np.exp(rng.uniform(np.log(0.55), np.log(1.15))))
    layers = [_backdrop(rng, height, width, aspect, photos)]
    for _ in range(rng.integers(1, 7)):
        if len(layers) > 1 and rng.random() < 0.2:
            layers.append(_twin(rng, layers[-1], height, width, aspect))
        else:
            layers.append(_shape(rng, height, width, size, aspect, photos))
    return Scene(height, width, tuple(layers))


def _backdrop(
    rng: np.random.Generator, height: int, width: int, aspect: float, photos: Sequence[Image]
) -> Layer:
    sides = (round(1.3 * height), round(1.3 * width / aspect))
    colours = texture(rng, *sides, photos)
    picture = np.dstack([colours, np.full(sides, 255, np.uint8)])
    calm = rng.uniform(0.1, 1.0)
    swing = calm * np.array(
        [0.25 * width, 0.2 * height, 0.2, 0.2, 0.08, 0.25 / width, 0.25 / height]
    )
    motion = _random_motion(rng, (width / 2, height / 2), aspect, swing, 0.3 * calm)
    return Layer(picture, motion, boundless=True)


def _shape(
    rng: np.random.Generator,
    height: int,
    width: int,
    size: float,
    aspect: float,
    photos: Sequence[Image],
) -> Layer:
    sides = tuple(np.exp(rng.uniform(np.log(0.15), np.log(0.75), 2)) * size)
    rows, columns = (max(16, round(side)) for side in sides)
    colours = texture(rng, rows, columns, photos)
    picture = np.dstack([colours, blob(rng, rows, columns)])
    return Layer(picture, _shape_motion(rng, height, width, aspect))


def _twin(rng: np.random.Generator, layer: Layer, height: int, width: int, aspect: float) -> Layer:
    """Return an object that looks the same as ``layer`` and moves on its own."""
    return replace(layer, motion=_shape_motion(rng, height, width, aspect))


def _shape_motion(rng: np.random.Generator, height: int, width: int, aspect: float) -> Motion:
    centre = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height)
    calm = rng.uniform(0.1, 1.0)
    turn = 1.5 if rng.random() < 0.15 else 0.35
    swing = calm * np.array(
        [0.4 * width, 0.35 * height, 0.3, turn, 0.15, 0.4 / width, 0.4 / height]
    )
    return _random_motion(rng, centre, aspect, swing, calm)


def _random_motion(
    rng: np.random.Generator,
    centre: tuple[float, float],
    aspect: float,
    swing: Doubles,
    elasticity: float,
) -> Motion:
    """Draw a motion about ``centre``; ``swing`` is its largest extent in each rigid parameter."""
    ripple = rng.uniform(0, 3.0, 2) * elasticity if rng.random() < 0.5 else np.zeros(2)
    extent = np.concatenate([swing, ripple])
    shape = (len(extent), 2)
    amplitude = extent[:, None] * rng.uniform(0, 0.6, shape)
    period = np.exp(rng.uniform(np.log(40), np.log(240), shape))
    base = np.zeros(len(extent))
    base[[_X, _Y]] = centre
    waves = Waves(base, amplitude, 2 * np.pi / period, rng.uniform(0, 2 * np.pi, shape))
    wavelengths = rng.uniform(40, 120, 2)
    phases = rng.uniform(0, 2 * np.pi, 2)
    return Motion(
        waves,
        aspect,
        (2 * np.pi / wavelengths[0], 2 * np.pi / wavelengths[1]),
        (float(phases[0]), float(phases[1])),
    )
