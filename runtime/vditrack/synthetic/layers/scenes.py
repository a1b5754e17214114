"""Scenes of moving, deforming image layers whose motion is known exactly.

A layer is a picture with a silhouette. A surface point ``u``, in picture pixels relative to the
picture's centre, appears at time ``t`` (in frames) at

    p = H(t) · R(u, t)

where ``R`` ripples the surface by two shears and ``H`` is a homography. Both have a closed-form
inverse. The renderer uses the inverse map and the tracks use the forward map of the same motion.
Positions are in pixels; (0, 0) is the outer corner of the upper-left pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Doubles, Floats, Image, Ints
from vditrack.synthetic.layers.textures import draw_silhouette, draw_texture

# Rows of `Waves`: the parameters of a motion.
_X, _Y, _LOG_SCALE, _ANGLE, _SHEAR, _TILT_X, _TILT_Y, _RIPPLE_X, _RIPPLE_Y = range(9)


@dataclass(frozen=True)
class Waves:
    """P parameters over time, each a constant plus K sine waves."""

    base: Doubles
    """Constants, [P]."""
    amplitude: Doubles
    """Amplitudes, [P, K]."""
    rate: Doubles
    """Angular frequencies in radians per frame, [P, K]."""
    phase: Doubles
    """Phases in radians, [P, K]."""

    def __add__(self, other: "Waves") -> "Waves":
        """Return the sum of two sets of waves of the same parameters."""
        return Waves(
            self.base + other.base,
            np.hstack([self.amplitude, other.amplitude]),
            np.hstack([self.rate, other.rate]),
            np.hstack([self.phase, other.phase]),
        )

    def at(self, time: float) -> Doubles:
        """Return the parameters, float64 [P], at ``time`` (in frames)."""
        swing = self.amplitude * np.sin(self.rate * time + self.phase)
        return np.asarray(self.base + swing.sum(axis=1))


@dataclass(frozen=True)
class Motion:
    """The map from a layer's surface to the frame: a ripple, then a homography."""

    waves: Waves
    """Parameters over time: position, log scale, angle, shear, tilts and ripple amplitudes."""
    aspect: float
    """Factor by which the frame is squeezed horizontally."""
    ripple_rate: tuple[float, float]
    """Angular frequencies of the two ripples, in radians per picture pixel."""
    ripple_phase: tuple[float, float]
    """Phases of the two ripples, in radians."""

    def forward(self, surface: Doubles, time: float) -> Doubles:
        """Map surface points, [..., 2], to frame positions, [..., 2]."""
        pose = self.waves.at(time)
        x, y = surface[..., 0], surface[..., 1]
        x = x + pose[_RIPPLE_X] * np.sin(self.ripple_rate[0] * y + self.ripple_phase[0])
        y = y + pose[_RIPPLE_Y] * np.sin(self.ripple_rate[1] * x + self.ripple_phase[1])
        return _project(self._homography(pose), x, y)

    def inverse(self, position: Doubles, time: float) -> Doubles:
        """Map frame positions, [..., 2], to the surface points, [..., 2], that appear there."""
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
        # The tilt acts around the layer's centre, so that it does not move the centre.
        return np.block([[linear + np.outer(centre, tilt), centre[:, None]], [tilt, 1.0]])


def _project(homography: Doubles, x: Doubles, y: Doubles) -> Doubles:
    (a, b, c), (d, e, f), (g, h, i) = homography
    depth = g * x + h * y + i
    return np.stack([(a * x + b * y + c) / depth, (d * x + e * y + f) / depth], axis=-1)


@dataclass(frozen=True)
class Layer:
    """A moving picture with a silhouette."""

    picture: Image
    """RGBA, uint8 [h, w, 4], opaque inside the silhouette."""
    motion: Motion
    """Map from the picture to the frame over time."""
    boundless: bool = False
    """Whether the layer is opaque everywhere and mirrored beyond its edges."""

    def sample(self, positions: NDArray[np.floating], time: float) -> Image:
        """Return the RGBA colours, uint8 [..., 4], at frame positions, [..., 2]."""
        surface = self.motion.inverse(np.asarray(positions), time)
        height, width = self.picture.shape[:2]
        # cv2.remap has its origin at the centre of the first pixel.
        columns = (surface[..., 0] + (width - 1) / 2).astype(np.float32)
        rows = (surface[..., 1] + (height - 1) / 2).astype(np.float32)
        border = cv2.BORDER_REFLECT_101 if self.boundless else cv2.BORDER_CONSTANT
        sampled = cv2.remap(self.picture, columns, rows, cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(sampled, dtype=np.uint8)

    def covers(self, positions: Doubles, time: float) -> Bools:
        """Return at which positions, [N, 2], the layer hides what is behind it, bool [N]."""
        if len(positions) == 0:
            return np.zeros(0, dtype=bool)
        covered: Bools = self.sample(positions[:, None], time)[:, 0, 3] >= 128
        return covered

    def silhouette(self, time: float, height: int, width: int) -> Bools:
        """Return the pixels whose centres the layer covers, hidden or not, bool [H, W]."""
        shown = np.zeros((height, width), np.bool_)
        box = self.box(time, height, width)
        if shown[box].size:
            centres = _pixel_centres(height, width)[box]
            shown[box] = self.sample(centres, time)[..., 3] >= 128
        return shown

    def box(self, time: float, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns of the frame that contain the layer."""
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
    """Points fixed to the surfaces of layers."""

    layer: Ints
    """Index of each point's layer, [N]."""
    surface: Doubles
    """Position on the layer's surface, in picture pixels from its centre, [N, 2]."""


@dataclass(frozen=True)
class Scene:
    """Moving layers in a frame."""

    height: int
    """Height of the frame in pixels."""
    width: int
    """Width of the frame in pixels."""
    layers: tuple[Layer, ...]
    """Layers from back to front; the first is boundless."""

    def render(self, time: float) -> Image:
        """Return the frame, uint8 [H, W, 3], at ``time`` (in frames)."""
        centres = _pixel_centres(self.height, self.width)
        frame = np.zeros((self.height, self.width, 3), np.float32)
        for layer in self.layers:
            box = layer.box(time, self.height, self.width)
            if frame[box].size:
                colours = layer.sample(centres[box], time).astype(np.float32)
                frame[box] += (colours[..., :3] - frame[box]) * (colours[..., 3:] / 255)
        return (frame + 0.5).astype(np.uint8)

    def mask(self, time: float) -> Image:
        """Return the index of the front layer at each pixel's centre, uint8 [H, W]."""
        top = np.zeros((self.height, self.width), np.uint8)
        for index, layer in enumerate(self.layers[1:], start=1):
            top[layer.silhouette(time, self.height, self.width)] = index
        return top

    def top_layers(self, positions: Doubles, time: float) -> Ints:
        """Return the index of the front layer at each of ``positions``, [N, 2]."""
        top = np.zeros(len(positions), np.int64)
        for index, layer in enumerate(self.layers[1:], start=1):
            top[layer.covers(positions, time)] = index
        return top

    def anchor(self, positions: Doubles, time: float) -> Anchors:
        """Fix the points that appear at ``positions``, [N, 2], at ``time`` to their surfaces."""
        layer = self.top_layers(positions, time)
        surface = np.empty_like(positions, dtype=np.float64)
        for index in np.unique(layer):
            mine = layer == index
            surface[mine] = self.layers[index].motion.inverse(positions[mine], time)
        return Anchors(layer, surface)

    def track(self, anchors: Anchors, times: Sequence[float]) -> tuple[Floats, Bools]:
        """Return the positions, float32 [N, T, 2], and visibility, bool [N, T], of the anchors.

        A point is visible if it is inside the frame and no layer in front covers it.
        """
        count = len(anchors.layer)
        points = np.empty((count, len(times), 2), np.float64)
        for index in np.unique(anchors.layer):
            mine = anchors.layer == index
            for step, time in enumerate(times):
                points[mine, step] = self.layers[index].motion.forward(anchors.surface[mine], time)
        inside = (points >= 0) & (points < (self.width, self.height))
        visible: Bools = np.logical_and(inside[..., 0], inside[..., 1])
        for step, time in enumerate(times):
            for index, layer in enumerate(self.layers):
                behind = visible[:, step] & (anchors.layer < index)
                visible[behind, step] = ~layer.covers(points[behind, step], time)
        return points.astype(np.float32), visible


def _pixel_centres(height: int, width: int) -> Floats:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=-1).astype(np.float32)


def draw_scene(
    rng: np.random.Generator, height: int, width: int, photos: Sequence[Image] = ()
) -> Scene:
    """Draw a scene: a backdrop under a moving camera, and one to six shapes in front of it."""
    size = float(np.sqrt(height * width))
    # Camera pictures are wider than the model's frame, so they reach the model squeezed sideways.
    aspect = float(np.exp(rng.uniform(np.log(0.55), np.log(1.15))))
    layers = [_draw_backdrop(rng, height, width, aspect, photos)]
    for _ in range(rng.integers(1, 7)):
        if len(layers) > 1 and rng.random() < 0.2:
            layers.append(_draw_twin(rng, layers[-1], height, width, aspect))
        else:
            layers.append(_draw_shape(rng, height, width, size, aspect, photos))
    return Scene(height, width, tuple(layers))


def _draw_backdrop(
    rng: np.random.Generator, height: int, width: int, aspect: float, photos: Sequence[Image]
) -> Layer:
    sides = (round(1.3 * height), round(1.3 * width / aspect))
    colours = draw_texture(rng, *sides, photos)
    picture = np.dstack([colours, np.full(sides, 255, np.uint8)])
    calm = rng.uniform(0.1, 1.0)
    swing = calm * np.array(
        [0.25 * width, 0.2 * height, 0.2, 0.2, 0.08, 0.25 / width, 0.25 / height]
    )
    motion = _draw_motion(rng, (width / 2, height / 2), aspect, swing, 0.3 * calm)
    return Layer(picture, motion, boundless=True)


def _draw_shape(
    rng: np.random.Generator,
    height: int,
    width: int,
    size: float,
    aspect: float,
    photos: Sequence[Image],
) -> Layer:
    sides = tuple(np.exp(rng.uniform(np.log(0.15), np.log(0.75), 2)) * size)
    rows, columns = (max(16, round(side)) for side in sides)
    colours = draw_texture(rng, rows, columns, photos)
    picture = np.dstack([colours, draw_silhouette(rng, rows, columns)])
    return Layer(picture, _draw_shape_motion(rng, height, width, aspect))


def _draw_twin(
    rng: np.random.Generator, layer: Layer, height: int, width: int, aspect: float
) -> Layer:
    """Return an object that looks like ``layer`` and moves independently."""
    return replace(layer, motion=_draw_shape_motion(rng, height, width, aspect))


def _draw_shape_motion(rng: np.random.Generator, height: int, width: int, aspect: float) -> Motion:
    centre = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height)
    calm = rng.uniform(0.1, 1.0)
    turn = 1.5 if rng.random() < 0.15 else 0.35
    swing = calm * np.array(
        [0.4 * width, 0.35 * height, 0.3, turn, 0.15, 0.4 / width, 0.4 / height]
    )
    return _draw_motion(rng, centre, aspect, swing, calm)


def _draw_motion(
    rng: np.random.Generator,
    centre: tuple[float, float],
    aspect: float,
    swing: Doubles,
    elasticity: float,
) -> Motion:
    """Draw a motion around ``centre`` with rigid amplitudes of up to ``swing``."""
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
