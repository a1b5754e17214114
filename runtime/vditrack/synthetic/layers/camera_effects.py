"""Simulates a camera: exposure over time, changing light, noise, blur and compression."""

from dataclasses import dataclass

import cv2
import numpy as np

from vditrack.arrays import Image
from vditrack.synthetic.layers.scenes import Scene, Waves

_EXPOSURES = 3


@dataclass(frozen=True)
class Camera:
    """A camera's imperfections; 0 and None switch an imperfection off."""

    light: Waves
    """Six parameters over time: gamma, contrast, brightness and three colour gains.

    Gamma, contrast and gains are logarithms, brightness is a share of the full range.
    """
    shutter: float
    """Exposure time in frames."""
    noise: float
    """Standard deviation of Gaussian noise, in grey levels."""
    blur: float
    """Standard deviation of Gaussian blur, in pixels."""
    coarseness: float
    """Factor by which the frame is scaled down and up again; none at 1 or less."""
    jpeg_quality: int | None
    """Quality of JPEG compression, 0 to 100."""
    exposures: int = _EXPOSURES
    """Number of instants that the exposure averages."""

    def shoot(self, scene: Scene, time: float, rng: np.random.Generator) -> Image:
        """Return the frame, uint8 [H, W, 3], exposed around ``time`` (in frames)."""
        frame = self._expose(scene, time)
        frame = self._apply_light(frame, time)
        frame = self._soften(frame)
        if self.noise:
            grain = rng.standard_normal(frame.shape, np.float32) * self.noise
            frame = np.clip(frame + grain, 0, 255).astype(np.uint8)
        return frame if self.jpeg_quality is None else _compress_jpeg(frame, self.jpeg_quality)

    def _expose(self, scene: Scene, time: float) -> Image:
        if not self.shutter:
            return scene.render(time)
        moments = time + self.shutter * np.linspace(-0.5, 0.5, self.exposures)
        frames = [scene.render(float(moment)) for moment in moments]
        return np.asarray(np.mean(frames, axis=0) + 0.5).astype(np.uint8)

    def _apply_light(self, frame: Image, time: float) -> Image:
        gamma, contrast, brightness, *gains = self.light.at(time)
        ramp = (np.arange(256) / 255) ** np.exp(gamma)
        ramp = 0.5 + (ramp - 0.5) * np.exp(contrast) + brightness
        table = np.clip(ramp[:, None] * np.exp(gains) * 255, 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(frame, np.ascontiguousarray(table)[None]), np.uint8)

    def _soften(self, frame: Image) -> Image:
        height, width = frame.shape[:2]
        if self.coarseness > 1:
            small = (round(width / self.coarseness), round(height / self.coarseness))
            coarse = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
            frame = np.asarray(cv2.resize(coarse, (width, height)), np.uint8)
        if self.blur:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), self.blur), np.uint8)
        return frame


def _compress_jpeg(frame: Image, quality: int) -> Image:
    _, coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draw a random camera. Most cameras have few imperfections."""
    extent = np.array([0.35, 0.3, 0.12, 0.12, 0.12, 0.12]) * rng.uniform(0, 1)
    shape = (len(extent), 2)
    waves = Waves(
        base=np.zeros(len(extent)),
        amplitude=extent[:, None] * rng.uniform(0, 0.6, shape),
        rate=2 * np.pi / np.exp(rng.uniform(np.log(60), np.log(400), shape)),
        phase=rng.uniform(0, 2 * np.pi, shape),
    )
    return Camera(
        light=waves,
        shutter=draw_sometimes(rng, 0.15, 0.3, 1.0),
        noise=draw_sometimes(rng, 0.5, 1.0, 9.0),
        blur=draw_sometimes(rng, 0.2, 0.4, 1.0),
        coarseness=draw_sometimes(rng, 0.2, 1.2, 2.0),
        jpeg_quality=int(rng.integers(25, 95)) if rng.random() < 0.35 else None,
    )


def draw_sometimes(rng: np.random.Generator, chance: float, low: float, high: float) -> float:
    """Draw a number from [low, high) with a probability, or return 0."""
    value = float(rng.uniform(low, high))
    return value if rng.random() < chance else 0.0


PERFECT = Camera(
    light=Waves(np.zeros(6), np.zeros((6, 1)), np.zeros((6, 1)), np.zeros((6, 1))),
    shutter=0.0,
    noise=0.0,
    blur=0.0,
    coarseness=0.0,
    jpeg_quality=None,
)
