"""Clips of known motion, rendered by several processes and stored with the teacher's view."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from vditrack.arrays import Image
from vditrack.synthetic.layers.clips import SyntheticClip
from vditrack_export.tiny.clip_store import FRAMES, SHARD, ClipStore, StoredClip
from vditrack_export.tiny.model import STRIDE
from vditrack_export.tiny.pictures import build_pyramid
from vditrack_export.tiny.quadruples import OBJECTS, make_quadruple
from vditrack_export.tiny.teacher import Teacher, fit_grid

POINTS = 96
"""Points of a rendered clip."""
FEW_OBJECTS = (0, 0)
EMPTY = 3
"""Every third clip shows a background alone."""
_MOST_WORKERS = 8

Report = Callable[[int, int], None]
"""Called with the clips or steps that are done, and those in all."""


@dataclass(frozen=True)
class Scenes:
    """What clips are rendered of."""

    pictures: Sequence[Image]
    """Pictures for surfaces, uint8 [h, w, 3] RGB; without them all are procedural."""
    size: tuple[int, int]
    """(height, width) of the clips, in pixels."""
    seed: int
    """Clip k depends on it and on k alone."""


class _Rendered(Dataset[SyntheticClip]):
    """The clips of scenes, by their numbers."""

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        self._pyramids = [build_pyramid(picture) for picture in scenes.pictures]

    def __getitem__(self, number: int) -> SyntheticClip:
        rng = np.random.default_rng((self._scenes.seed, number))
        objects = FEW_OBJECTS if number % EMPTY == 0 else OBJECTS
        return make_quadruple(rng, *self._scenes.size, self._pyramids, POINTS, objects)


def render_into(store: ClipStore, scenes: Scenes, teacher: Teacher | None, report: Report) -> None:
    """Render the clips that a store lacks.

    Args:
        store: the store.
        scenes: what is rendered.
        teacher: describes the frames one by one; None to store no descriptors.
        report: see `Report`.

    """
    missing = store.missing()
    numbers = [number for shard in missing for number in store.clips_of(shard)]
    clips = _render(_Rendered(scenes), numbers)
    report(len(store) - len(numbers), len(store))
    for shard in missing:
        stored = []
        for number in store.clips_of(shard):
            stored.append(_add_teacher(next(clips), teacher))
            report(number + 1, len(store))
        store.write(shard, stored)


def _add_teacher(clip: SyntheticClip, teacher: Teacher | None) -> StoredClip:
    rows, columns = (side // STRIDE for side in clip.frames.shape[1:3])
    if teacher is None:
        described = np.empty((FRAMES, rows, columns, 0), np.float16)
    else:
        described = fit_grid(teacher.describe_each(clip.frames), rows, columns)
    return StoredClip(clip.frames, described, clip.points, clip.visible)


def _render(clips: _Rendered, numbers: Sequence[int]) -> Iterator[SyntheticClip]:
    """Yield clips in order; several shards are rendered by other processes."""
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    if len(numbers) <= 2 * SHARD or workers == 1:
        yield from (clips[number] for number in numbers)
        return
    yield from DataLoader(
        clips,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4,
        # A forked process would wait forever for OpenCV's threads, which are not forked.
        multiprocessing_context="spawn",
        worker_init_fn=_limit_threads,
    )


def _limit_threads(_worker: int) -> None:
    cv2.setNumThreads(1)
