"""How the cells of a frame move: what tells motion for a model without motion features.

TED (arXiv 2512.02339) tells objects that look the same apart by a video model's features at high
noise. Those of a small model carry no motion. But the descriptors of frames find a cell again in
the frames beside its own (HeFT, arXiv 2512.04619), and how far it went there is its velocity.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product, repeat

import numpy as np

from vditrack.arrays import Floats
from vditrack.bundle.configuration import Displacement
from vditrack.features.feature_map import FeatureMap


@dataclass(frozen=True)
class Moving:
    """What a frame shows, and how that moves."""

    appearance: FeatureMap
    velocity: Floats | None
    """[rows, columns, 2] (x, y), in cells a frame; None where no frame beside it was seen."""


def clip_motion(maps: Iterable[FeatureMap], settings: Displacement) -> Iterator[Moving]:
    """Velocity beside appearance for each frame of a clip, from the frames before and after it.

    Args:
        maps: appearance of each frame; no more than 2 x ``settings.frames`` + 1 are held.
        settings: how cells are looked for.

    """
    side = settings.frames
    around: deque[FeatureMap | None] = deque(repeat(None, 2 * side + 1), maxlen=2 * side + 1)
    for newest in chain(maps, repeat(None, side)):
        around.append(newest)
        middle = around[side]
        if middle is not None:
            others = {t - side: other for t, other in enumerate(around) if other is not None}
            yield _moving(middle, others, settings)


class MotionWindow:
    """Velocity beside appearance for frames that come one by one, from those before each."""

    def __init__(self, settings: Displacement) -> None:
        self._settings = settings
        self._before: deque[FeatureMap] = deque(maxlen=settings.frames)

    def push(self, newest: FeatureMap) -> Moving:
        """Take the appearance of the next frame."""
        before = dict(zip(range(-len(self._before), 0), self._before, strict=True))
        self._before.append(newest)
        return _moving(newest, before, self._settings)


def velocities(frame: Floats, others: Mapping[int, Floats], settings: Displacement) -> Floats:
    """Velocity of each cell: the mean over places where it may be in the frames beside its own.

    All places of all those frames share one softmax, so that a frame in which the cell is covered
    counts little.

    Args:
        frame: descriptors [rows, columns, D], each of length 1.
        others: the same of other frames, by how many frames later they are; at least one.
        settings: how far a cell is looked for, how sharply, and with what gain.

    Returns:
        [rows, columns, 2] (x, y), in cells a frame.

    """
    rows, columns = frame.shape[:2]
    steps = [(later, *shift) for later in others if later for shift in _shifts(later, settings)]
    cosines = np.full((len(steps), rows, columns), -np.inf, np.float32)
    for scores, (later, right, down) in zip(cosines, steps, strict=True):
        here, there = _overlap(right, down, rows, columns)
        np.einsum("ijd,ijd->ij", frame[here], others[later][there], out=scores[here])
    weights = np.exp((cosines - cosines.max(axis=0)) / settings.temperature)
    moved = np.array([(right / later, down / later) for later, right, down in steps], np.float32)
    total = np.tensordot(weights, moved, axes=(0, 0))
    return np.asarray(settings.gain * total / weights.sum(axis=0)[..., None], np.float32)


def _moving(frame: FeatureMap, others: Mapping[int, FeatureMap], settings: Displacement) -> Moving:
    beside = {later: _of_length_one(other.descriptors) for later, other in others.items() if later}
    if not beside:
        return Moving(frame, None)
    return Moving(frame, velocities(_of_length_one(frame.descriptors), beside, settings))


def _of_length_one(descriptors: Floats) -> Floats:
    norms = np.linalg.norm(descriptors, axis=2, keepdims=True)
    return np.asarray(descriptors / np.maximum(norms, 1e-12), np.float32)


def _shifts(later: int, settings: Displacement) -> list[tuple[int, int]]:
    """Steps (right, down), in cells, that a cell may take in so many frames."""
    radius = settings.reach * abs(later)
    steps = range(-int(radius), int(radius) + 1)
    return [(x, y) for x, y in product(steps, steps) if np.hypot(x, y) <= radius]


def _overlap(
    right: int, down: int, rows: int, columns: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Cells that stay on the grid when they take a step, and where they are then."""

    def along(step: int, count: int) -> tuple[slice, slice]:
        first, last = max(0, -step), max(count - max(0, step), 0, -step)
        return slice(first, last), slice(first + step, last + step)

    (top, there_top), (left, there_left) = along(down, rows), along(right, columns)
    return (top, left), (there_top, there_left)
