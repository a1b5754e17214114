"""The layered benchmark: five kinds of difficulty with exact ground truth, made from a seed."""

from collections.abc import Iterator

import numpy as np

from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.challenges import FRAMES, KINDS, Stage
from vditrack.synthetic.layers.scenes import Scene

COUNT = 15
"""Number of clips in the suite: three of each kind."""

_PICKED = {0: 40, FRAMES // 3: 12, FRAMES * 2 // 3: 12}
"""Number of points picked, by the frame in which they are picked."""


def render_suite(seed: int) -> Iterator[AnnotatedClip]:
    """Render the clips of the suite, one at a time.

    A clip has 48 frames of 256 x 256 pixels, the tracks of 64 points, the masks of its objects, the
    object of each point, and the objects that look the same (in lookalikes). Its name starts with
    its kind: drift, occlusion, leaving, blur-and-light or lookalikes. All surfaces are procedural,
    so the suite needs no data. The same seed (0 or more) and versions of NumPy and OpenCV give the
    same bytes.
    """
    for number in range(COUNT):
        yield render_stage(get_clip_name(number), *draw_stage(seed, number))


def get_clip_name(number: int) -> str:
    """Return the name of clip ``number``, which starts with its kind."""
    return f"{list(KINDS)[number % len(KINDS)]}-{number:02}"


def draw_stage(seed: int, number: int) -> tuple[Stage, np.random.Generator]:
    """Draw the stage of clip ``number``, and return it with the generator for rendering it.

    Each clip has its own random stream, independent of the other clips.
    """
    rng = np.random.default_rng([seed, number])
    build = list(KINDS.values())[number % len(KINDS)]
    return build(rng), rng


def render_stage(name: str, filmed: Stage, rng: np.random.Generator) -> AnnotatedClip:
    """Render a clip of a stage; points are picked in the first frame and in two later ones."""
    scene = filmed.scene
    times = [float(time) for time in range(FRAMES)]
    masks = np.stack([scene.mask(time) for time in times])
    joined = filmed.pick_points(rng, _PICKED)
    points, visible = scene.track(joined, times)
    frames = np.stack([filmed.camera.shoot(scene, time, rng) for time in times])
    objects = joined.layer.astype(np.uint8)
    alike = _find_lookalikes(scene)
    return AnnotatedClip(name, frames, points, visible, masks, objects, alike, known_outside=True)


def _find_lookalikes(scene: Scene) -> tuple[int, ...]:
    """Return the indices of the layers that share their picture with another layer."""
    pictures = [id(layer.picture) for layer in scene.layers]
    return tuple(n for n, picture in enumerate(pictures) if pictures.count(picture) > 1)
