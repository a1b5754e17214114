"""A benchmark of rendered clips with exact truth: the same seed makes the same clips."""

from collections.abc import Iterator

import numpy as np

from vditrack.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.challenges import FRAMES, KINDS, Stage
from vditrack.synthetic.layers.scenes import Anchors, Scene
from vditrack.synthetic.point_sampling import pick_pixels

COUNT = 15
"""Clips in the suite: three of each kind."""

_PICKED = {0: 40, FRAMES // 3: 12, FRAMES * 2 // 3: 12}
"""How many points are picked in which frame."""


def suite_clips(seed: int) -> Iterator[AnnotatedClip]:
    """Render the suite's clips, each when it is asked for.

    A clip has 48 frames of 256 x 256 pixels, the tracks of 64 points and the masks of its objects,
    and says which point lies on which object and which objects look the same (those of lookalikes);
    its name begins with its kind: drift, occlusion, leaving, blur-and-light or lookalikes. Every
    surface is procedural, so the suite needs no data; the same seed (0 or more) and versions of
    NumPy and OpenCV make the same bytes.
    """
    for number in range(COUNT):
        yield film(clip_name(number), *stage(seed, number))


def clip_name(number: int) -> str:
    """Return the name of one of the suite's clips, its kind first."""
    return f"{list(KINDS)[number % len(KINDS)]}-{number:02}"


def stage(seed: int, number: int) -> tuple[Stage, np.random.Generator]:
    """Set one clip's stage, and return it with the generator that films it.

    Each clip has a random stream of its own and depends on no other clip.
    """
    rng = np.random.default_rng([seed, number])
    build = list(KINDS.values())[number % len(KINDS)]
    return build(rng), rng


def film(name: str, filmed: Stage, rng: np.random.Generator) -> AnnotatedClip:
    """Film a stage, with points picked on it in the first frame and in two later ones."""
    scene = filmed.scene
    times = [float(time) for time in range(FRAMES)]
    masks = np.stack([scene.mask(time) for time in times])
    anchors = []
    for time, count in _PICKED.items():
        positions = pick_pixels(rng, masks[time], masks[time] > 0, count, filmed.share)
        # Within its pixel a point may be anywhere.
        positions += rng.uniform(-0.5, 0.5, positions.shape)
        anchors.append(scene.anchor(positions, float(time)))
    joined = Anchors(
        np.concatenate([a.layer for a in anchors]), np.concatenate([a.surface for a in anchors])
    )
    points, visible = scene.track(joined, times)
    frames = np.stack([filmed.camera.shoot(scene, time, rng) for time in times])
    objects = joined.layer.astype(np.uint8)
    return AnnotatedClip(name, frames, points, visible, masks, objects, _alike(scene))


def _alike(scene: Scene) -> tuple[int, ...]:
    """Indices of the layers that share their picture with another."""
    pictures = [id(layer.picture) for layer in scene.layers]
    return tuple(n for n, picture in enumerate(pictures) if pictures.count(picture) > 1)
