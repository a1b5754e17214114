"""The forward-backward check that decides visibility (HeFT, arXiv 2512.04619, section 3)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats
from vditrack.bundle.configuration import Matching
from vditrack.features.feature_map import FeatureMap
from vditrack.points.descriptor_matching import match


def backward_error(
    maps: Sequence[FeatureMap],
    trail: Floats,
    visible: Bools,
    age: NDArray[np.integer],
    settings: Matching,
    steps: Sequence[int] | None = None,
) -> Floats:
    """Return the distance between a trail and the track from its end backward.

    Args:
        maps: K feature maps, oldest first.
        trail: [N, K, 2] (x, y) in model pixels, the forward track in those frames.
        visible: [N, K] visibility; the last frame's value is not read.
        age: [N] maps since each point was first described: the check goes back no further.
        settings: of matching.
        steps: K frames between each map and the one before, by which searches are wider; by default
            1 each.

    Returns:
        [N] in model pixels, root mean square over the frames in which the point was visible; inf if
        it was visible in none of them.

    """
    last = len(maps) - 1
    templates = maps[last].sample(trail[:, last], settings.template_falloff)
    found = trail[:, last].copy()
    squared = np.zeros(len(trail), np.float64)
    count = np.zeros(len(trail), np.int64)
    # As forward: the search has no radius after a frame in which the point was invisible.
    limited = np.ones(len(trail), np.bool_)
    for frame in range(last - 1, -1, -1):
        alive = age >= last - frame
        if not alive.any():
            break
        around, step = found[alive], 1 if steps is None else steps[frame + 1]
        back = match(templates[alive], maps[frame], around, limited[alive], settings, step)
        found[alive] = back.points
        compared = alive & visible[:, frame]
        squared += compared * ((found - trail[:, frame]) ** 2).sum(axis=1)
        count += compared
        limited = visible[:, frame]
    error = np.sqrt(squared / np.maximum(count, 1))
    return np.where(count > 0, error, np.inf).astype(np.float32)
