"""Renders clips of random scenes with exact tracks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Image, Ints
from vditrack.synthetic.layers.camera_effects import PERFECT, Camera, draw_camera
from vditrack.synthetic.layers.scenes import Anchors, Scene, draw_scene


@dataclass(frozen=True)
class SyntheticClip:
    """A rendered clip and the exact tracks of points on its surfaces."""

    frames: NDArray[np.uint8]
    """RGB frames, uint8 [T, H, W, 3]."""
    points: Floats
    """Positions (x, y), float32 [N, T, 2], in pixels.

    (0, 0) is the outer corner of the upper-left pixel.
    """
    visible: Bools
    """Whether each point is visible, bool [N, T]."""
    query_frame: Ints
    """Frame in which each point was picked and is visible, int64 [N]."""


def render_clip(
    seed: int,
    height: int,
    width: int,
    frames: int,
    *,
    points: int = 64,
    photos: Sequence[Image] = (),
    perfect_camera: bool = False,
) -> SyntheticClip:
    """Render a clip of a random scene, its points picked in the first frame.

    The same arguments give the same bytes.

    Args:
        seed: Seed of all random choices.
        height: Height of the frames, in pixels.
        width: Width of the frames, in pixels.
        frames: Number of frames.
        points: Number of points.
        photos: Photographs for the surfaces, uint8 [h, w, 3]; without them all are procedural.
        perfect_camera: Render without noise, blur, changing light and compression.

    Returns:
        The clip.

    """
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, height, width, photos)
    camera = PERFECT if perfect_camera else draw_camera(rng)
    picked = [points] + [0] * (frames - 1)
    return film_scene(rng, scene, camera, [float(t) for t in range(frames)], picked)


def film_scene(
    rng: np.random.Generator,
    scene: Scene,
    camera: Camera,
    times: Sequence[float],
    picked: Sequence[int],
) -> SyntheticClip:
    """Render ``scene`` at ``times`` and track ``picked[t]`` random points of each frame t."""
    frames = np.stack([camera.shoot(scene, time, rng) for time in times])
    query_frame = np.repeat(np.arange(len(times)), picked)
    anchors = [
        scene.anchor(rng.uniform(0, (scene.width, scene.height), (count, 2)), time)
        for time, count in zip(times, picked, strict=True)
    ]
    joined = Anchors(
        np.concatenate([a.layer for a in anchors]), np.concatenate([a.surface for a in anchors])
    )
    points, visible = scene.track(joined, times)
    return SyntheticClip(frames, points, visible, query_frame)
