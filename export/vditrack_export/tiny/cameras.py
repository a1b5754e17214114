"""Light, shadows, blur and noise between a training scene and its frames."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Image
from vditrack.synthetic.layers.camera_effects import Camera, draw_sometimes
from vditrack.synthetic.layers.scenes import Scene, Waves

Field = NDArray[np.float32]


@dataclass(frozen=True)
class LitScene(Scene):
    """A scene under fixed shadows with the motion blur of a moving camera."""

    shade: Field
    """The share of the light that arrives, float32 [H, W]."""
    smear: Field
    """The kernel of the motion blur, float32 [k, k]. It is symmetric, so points do not move."""

    def render(self, time: float) -> Image:
        """Return the frame at a time, uint8 [H, W, 3]."""
        frame = super().render(time) * self.shade[..., None]
        if self.smear.size > 1:
            frame = cv2.filter2D(frame, -1, self.smear, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(frame + 0.5).astype(np.uint8)


def draw_shade(rng: np.random.Generator, height: int, width: int) -> Field:
    """Draw a field of light, float32 [height, width], without or with one or two shadows.

    Each shadow has one straight edge, sharp or soft.
    """
    shade = np.ones((height, width), np.float32)
    if rng.random() < 0.5:
        return shade
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for _ in range(rng.integers(1, 3)):
        heading = rng.uniform(0, 2 * np.pi)
        place = rng.uniform(0.1, 0.9, 2) * (width, height)
        across = (x - place[0]) * np.cos(heading) + (y - place[1]) * np.sin(heading)
        softness = np.exp(rng.uniform(np.log(1), np.log(0.3 * width)))
        depth = rng.uniform(0.2, 0.7)
        shade *= 1 - depth / (1 + np.exp(np.clip(-across / softness, -30, 30)))
    return shade.astype(np.float32)


def draw_blur_kernel(rng: np.random.Generator) -> Field:
    """Draw the kernel of a short, straight motion blur, float32 [k, k]; mostly of no blur."""
    if rng.random() < 0.75:
        return np.ones((1, 1), np.float32)
    half = float(rng.uniform(1, 4))
    heading = rng.uniform(0, np.pi)
    reach = int(np.ceil(half))
    offsets = np.arange(-reach, reach + 1)
    along = offsets * np.cos(heading)
    aside = offsets * np.sin(heading)
    distance = np.abs(aside[None, :] - along[:, None])
    kernel = np.clip(1 - distance, 0, 1) * (np.hypot(offsets[:, None], offsets) <= half)
    return np.asarray(kernel / kernel.sum(), np.float32)


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draw a camera with flickering light and, each with some probability, other faults."""
    # Gamma, contrast, brightness and three gains.
    spread = np.array([0.35, 0.3, 0.1, 0.15, 0.15, 0.15]) * rng.uniform(0, 0.9)
    shape = (len(spread), 1)
    flicker = Waves(
        base=rng.normal(0, 1, len(spread)) * spread,
        amplitude=0.3 * rng.uniform(0, 1, shape) * spread[:, None],
        rate=2 * np.pi / np.exp(rng.uniform(np.log(8), np.log(100), shape)),
        phase=rng.uniform(0, 2 * np.pi, shape),
    )
    return Camera(
        light=flicker,
        shutter=0.0,
        noise=draw_sometimes(rng, 0.5, 1.0, 10.0),
        blur=draw_sometimes(rng, 0.3, 0.4, 1.6),
        coarseness=draw_sometimes(rng, 0.25, 1.2, 2.2),
        jpeg_quality=int(rng.integers(25, 95)) if rng.random() < 0.35 else None,
    )
