"""The clips of training: four frames, two windows a random time apart."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vditrack.synthetic.camera import random_camera
from vditrack.synthetic.clips import SyntheticClip, shoot
from vditrack.synthetic.scenes import random_scene


def make_quadruple(
    rng: np.random.Generator,
    height: int,
    width: int,
    photos: Sequence[NDArray[np.uint8]],
    points: int,
) -> SyntheticClip:
    """Make the four frames of two windows: times t0, t0 + d, t1, t1 + d'; points picked in all."""
    scene = random_scene(rng, height, width, photos)
    start = float(rng.uniform(0, 1000))
    later = start + float(np.exp(rng.uniform(np.log(1), np.log(120))))
    times = [start, start + _window_step(rng), later, later + _window_step(rng)]
    return shoot(rng, scene, random_camera(rng), times, [points // 4] * 4)


def _window_step(rng: np.random.Generator) -> float:
    # The first window of a stream holds its only frame twice.
    return 0.0 if rng.random() < 0.1 else float(np.exp(rng.uniform(0, np.log(5))))
