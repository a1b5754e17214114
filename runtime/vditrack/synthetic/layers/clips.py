"""Clips of synthetic scenes with exact tracks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.synthetic.layers.camera_effects import PERFECT, Camera, random_camera
from vditrack.synthetic.layers.scenes import Anchors, Scene, random_scene

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class SyntheticClip:
    """Frames ``uint8 [T, H, W, 3]`` RGB, and the exact tracks of points on the surfaces in them.

    ``points`` is ``float32 [N, T, 2]``, (x, y) in pixels, (0, 0) the upper-left corner of the
    upper-left pixel; ``visible`` is ``bool [N, T]``. ``query_frame [N]`` is the frame in which each
    point was picked, where it is visible.
    """

    frames: NDArray[np.uint8]
    points: NDArray[np.float32]
    visible: NDArray[np.bool_]
    query_frame: NDArray[np.int64]


def make_clip(
    seed: int,
    height: int,
    width: int,
    frames: int,
    *,
    points: int = 64,
    photos: Sequence[Image] = (),
    perfect_camera: bool = False,
) -> SyntheticClip:
    """Make a smooth clip at consecutive times, points picked in its first frame.

    The same arguments give the same bytes. Without ``photos`` every surface is procedural.
    """
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, height, width, photos)
    camera = PERFECT if perfect_camera else random_camera(rng)
    picked = [points] + [0] * (frames - 1)
    return shoot(rng, scene, camera, [float(t) for t in range(frames)], picked)


def shoot(
    rng: np.random.Generator,
    scene: Scene,
    camera: Camera,
    times: Sequence[float],
    picked: Sequence[int],
) -> SyntheticClip:
    """Film ``scene`` at ``times``, following ``picked[t]`` random points of each frame."""
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
