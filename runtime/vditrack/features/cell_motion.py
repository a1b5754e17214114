"""Velocities of grid cells: motion for models whose features carry none.

TED (arXiv 2512.02339) separates objects that look the same by a video model's features at high
noise. Those of a small model carry no motion. But descriptors match a cell with the frames beside
its own (HeFT, arXiv 2512.04619), and its displacement there is its velocity.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product, repeat

import numpy as np

from vditrack.arrays import Floats
from vditrack.bundle.configuration import Displacement
from vditrack.features.feature_map import FeatureMap, normalise


@dataclass(frozen=True)
class FrameMotion:
    """The appearance of a frame, and the velocities of its cells."""

    appearance: FeatureMap
    """Appearance features of the frame."""
    velocity: Floats | None
    """[rows, columns, 2] (x, y), in cells a frame; None if there is no frame beside it."""


def estimate_clip_motion(
    maps: Iterable[FeatureMap], settings: Displacement
) -> Iterator[FrameMotion]:
    """Yield the motion of each frame of a clip, from the frames before and after it.

    Args:
        maps: appearance of each frame; at most 2 x ``settings.frames`` + 1 are kept in memory.
        settings: of the search for cells.

    """
    side = settings.frames
    around: deque[_Normalised | None] = deque(repeat(None, 2 * side + 1), maxlen=2 * side + 1)
    for newest in chain(map(_Normalised, maps), repeat(None, side)):
        around.append(newest)
        middle = around[side]
        if middle is not None:
            others = {t - side: other for t, other in enumerate(around) if other is not None}
            yield _estimate_motion(middle, others, settings)


class MotionWindow:
    """Estimates the motion of frames that come one by one, from the frames before each."""

    def __init__(self, settings: Displacement) -> None:
        """Start before the first frame."""
        self._settings = settings
        self._before: deque[_Normalised] = deque(maxlen=settings.frames)

    def copy(self) -> "MotionWindow":
        """Return a window with the same state, which shares its arrays."""
        other = MotionWindow(self._settings)
        other._before.extend(self._before)
        return other

    def push(self, newest: FeatureMap) -> FrameMotion:
        """Return the motion of the next frame, given its appearance."""
        before = dict(zip(range(-len(self._before), 0), self._before, strict=True))
        self._before.append(_Normalised(newest))
        return _estimate_motion(self._before[-1], before, self._settings)


def estimate_velocities(
    frame: Floats, others: Mapping[int, Floats], settings: Displacement
) -> Floats:
    """Estimate the velocity of each cell: a mean over its possible displacements.

    All displacements to all frames beside its own share one softmax, so that a frame in which the
    cell is occluded has little weight.

    Args:
        frame: descriptors [rows, columns, D], each of length 1.
        others: the same of other frames, by how many frames later they are; at least one.
        settings: radius, temperature and gain.

    Returns:
        [rows, columns, 2] (x, y), in cells a frame.

    """
    rows, columns = frame.shape[:2]
    steps = [
        (later, *shift) for later in others if later for shift in _displacements(later, settings)
    ]
    cosines = np.full((len(steps), rows, columns), -np.inf, np.float32)
    for scores, (later, right, down) in zip(cosines, steps, strict=True):
        here, there = _overlap(right, down, rows, columns)
        np.einsum("ijd,ijd->ij", frame[here], others[later][there], out=scores[here])
    weights = np.exp((cosines - cosines.max(axis=0)) / settings.temperature)
    moved = np.array([(right / later, down / later) for later, right, down in steps], np.float32)
    total = np.tensordot(weights, moved, axes=(0, 0))
    return np.asarray(settings.gain * total / weights.sum(axis=0)[..., None], np.float32)


@dataclass(frozen=True)
class _Normalised:
    """The map of a frame, which is compared with several frames but normalised once."""

    appearance: FeatureMap

    @cached_property
    def descriptors(self) -> Floats:
        """[rows, columns, D], each of length 1."""
        return normalise(self.appearance.descriptors)


def _estimate_motion(
    frame: _Normalised, others: Mapping[int, _Normalised], settings: Displacement
) -> FrameMotion:
    beside = {later: other.descriptors for later, other in others.items() if later}
    if not beside:
        return FrameMotion(frame.appearance, None)
    return FrameMotion(frame.appearance, estimate_velocities(frame.descriptors, beside, settings))


def _displacements(later: int, settings: Displacement) -> list[tuple[int, int]]:
    """Return the displacements (right, down), in cells, that a cell may have after some frames."""
    radius = settings.reach * abs(later)
    steps = range(-int(radius), int(radius) + 1)
    return [(x, y) for x, y in product(steps, steps) if np.hypot(x, y) <= radius]


def _overlap(
    right: int, down: int, rows: int, columns: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the cells that stay on the grid after a displacement, and where they are then."""

    def along(step: int, count: int) -> tuple[slice, slice]:
        first, last = max(0, -step), max(count - max(0, step), 0, -step)
        return slice(first, last), slice(first + step, last + step)

    (top, there_top), (left, there_left) = along(down, rows), along(right, columns)
    return (top, left), (there_top, there_left)
