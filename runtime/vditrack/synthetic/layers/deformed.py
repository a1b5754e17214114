"""The deformed benchmark: the clips of the suite, as footage of soft things in poor light would be.

Pictures are deformed smoothly over time, frames are left out, and light, blur and compression take
from what patches show. So flow and patches fail more often than in the suite, and descriptors have
to say where points are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from vditrack.arrays import Floats, Frame
from vditrack.coordinates import pixel_centres
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers import suite

COUNT = suite.COUNT
"""Number of clips in the benchmark."""

_WAVES = 3
"""Number of patterns that a deformation is the sum of."""
_PERIODS = (0.3, 2.0)
"""Fewest and most periods of a pattern in a clip."""
_CELLS = (2, 6)
"""Fewest and most cells a side of a pattern."""
_STRETCH = (0.2, 0.8)
"""Lowest and highest bound of the change of the displacement, along either axis, from a pixel to
the next. Below 1, nothing folds."""
_BORDER = 32.0
"""Pixels from the border of the frame within which deformations fade."""
_STEPS = (1, 2, 3)
"""Of how many frames one is kept."""
_BLUR = 1.3
"""Largest standard deviation of the blur, in pixels."""
_QUALITY = (35, 95)
"""Lowest and highest JPEG quality."""
_GAMMA, _GAIN, _OFFSET = 0.35, 0.35, 25.0
"""Largest logarithm of the gamma, largest change of the gain, and largest offset in grey levels."""
_ROUNDS = 30
"""Fixed-point steps that invert a deformation."""


def render_deformed(seed: int) -> Iterator[AnnotatedClip]:
    """Render the clips of the benchmark, one at a time.

    They are those of ``synthetic:SEED``, with one of one to three frames, and the same points. The
    same seed (0 or more) and versions of NumPy and OpenCV give the same bytes.
    """
    for number, clip in enumerate(suite.render_suite(seed)):
        yield deform_clip(clip, np.random.default_rng([seed, number, 5]))


def deform_clip(clip: AnnotatedClip, rng: np.random.Generator) -> AnnotatedClip:
    """Return a clip as it would be of deforming things in poor light.

    Args:
        clip: of T frames, with tracks.
        rng: for what happens to it.

    Returns:
        The clip, with one of one to three frames, and without points that are never visible in
        those. It has no masks.

    """
    step = int(rng.choice(_STEPS))
    kept = slice(int(rng.integers(step)), None, step)
    frames, points, visible = clip.frames[kept], clip.points[:, kept], clip.visible[:, kept]
    shown = visible.any(axis=1)
    height, width = frames.shape[1:3]
    deformation = draw_deformation(rng, height, width, len(frames))
    camera = _draw_camera(rng)
    moved = [deformation.displace(points[shown, time], time) for time in range(len(frames))]
    seen = [
        camera.shoot(deformation.warp(frame, time), time / max(1, len(frames) - 1))
        for time, frame in enumerate(frames)
    ]
    return replace(
        clip,
        name=f"deformed-{clip.name}",
        frames=np.stack(seen),
        points=np.stack(moved, axis=1),
        visible=visible[shown],
        masks=None,
        objects=None,
        alike=(),
    )


@dataclass(frozen=True)
class Deformation:
    """A smooth displacement that changes over time and is zero on the border of the frame."""

    patterns: Floats
    """[P, H, W, 2] displacement (x, y) in pixels, at the pixels' centres."""
    rates: Floats
    """[P] of their sine waves, in radians a frame."""
    phases: Floats
    """[P] in radians."""

    def at(self, time: int) -> Floats:
        """Return the displacement [H, W, 2] (x, y) in a frame."""
        strengths = np.sin(self.rates * np.float32(time) + self.phases)
        return np.asarray(np.tensordot(strengths, self.patterns, axes=1), np.float32)

    def displace(self, points: Floats, time: int) -> Floats:
        """Return where points [N, 2] (x, y) of the picture are in a frame, in pixels."""
        if not len(points):
            return points
        centre = pixel_centres(np.zeros(1, np.intp))
        places = np.asarray(points - centre, np.float32)
        height, width = self.patterns.shape[1:3]
        inside = np.all((points >= 0) & (points < (width, height)), axis=1, keepdims=True)
        step = _read(self.at(time), places[:, None])[:, 0]
        return np.asarray(points + step * inside, np.float32)

    def warp(self, frame: Frame, time: int) -> Frame:
        """Return a frame uint8 [H, W, 3] of the given time, deformed."""
        height, width = frame.shape[:2]
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        goals = np.stack([x, y], axis=2)
        places, displacement = goals.copy(), self.at(time)
        for _ in range(_ROUNDS):
            places = goals - _read(displacement, places)
        return np.rint(_read(frame, places)).astype(np.uint8)


def draw_deformation(rng: np.random.Generator, height: int, width: int, frames: int) -> Deformation:
    """Draw a deformation of a picture of a height and width, for a number of frames."""
    cells = int(rng.integers(_CELLS[0], _CELLS[1] + 1))
    coarse = rng.normal(size=(_WAVES, cells + 3, cells + 3, 2)).astype(np.float32)
    fade = np.minimum(_from_border(width), _from_border(height)[:, None])
    patterns = np.stack(
        [cv2.resize(each, (width, height), interpolation=cv2.INTER_CUBIC) for each in coarse]
    )
    patterns = patterns * np.minimum(1, fade)[:, :, None]
    steps = [np.abs(np.diff(patterns, axis=axis)).max(axis=(1, 2, 3)).sum() for axis in (1, 2)]
    strength = rng.uniform(*_STRETCH) / max(steps)
    rates = rng.uniform(*_PERIODS, _WAVES) / frames * 2 * np.pi
    return Deformation(
        np.asarray(patterns * strength, np.float32),
        np.asarray(rates, np.float32),
        np.asarray(rng.uniform(0, 2 * np.pi, _WAVES), np.float32),
    )


@dataclass(frozen=True)
class _Camera:
    """A poor camera, whose light changes over a clip."""

    blur: float
    quality: int
    gamma: float
    gain: float
    offset: float

    def shoot(self, frame: Frame, share: float) -> Frame:
        """Return a frame uint8 [H, W, 3] at a share of the clip."""
        if self.blur > 0:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), self.blur), np.uint8)
        light = (np.arange(256) / 255) ** np.exp(self.gamma * share) * 255
        light = light * (1 + self.gain * share) + self.offset * share
        lit = np.clip(light, 0, 255).astype(np.uint8)[frame]
        _, encoded = cv2.imencode(".jpg", lit, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _draw_camera(rng: np.random.Generator) -> _Camera:
    return _Camera(
        blur=float(rng.uniform(0.2, _BLUR)) if rng.random() < 0.5 else 0.0,
        quality=int(rng.integers(_QUALITY[0], _QUALITY[1] + 1)),
        gamma=float(rng.uniform(-_GAMMA, _GAMMA)),
        gain=float(rng.uniform(-_GAIN, _GAIN)),
        offset=float(rng.uniform(-_OFFSET, _OFFSET)),
    )


def _from_border(length: int) -> Floats:
    """Return the distance [length] of pixels from the nearer end of a row, as a share of fading."""
    places = np.arange(length, dtype=np.float32)
    return np.asarray(np.minimum(places, length - 1 - places) / _BORDER, np.float32)


def _read(values: Floats | Frame, places: Floats) -> Floats:
    """Read values [H, W, C] at places [h, w, 2] (x, y); whole numbers are the pixels' centres."""
    x, y = np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])
    read = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read, np.float32)
