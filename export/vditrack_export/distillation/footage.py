"""Clips of the user's footage, stored with the teacher's descriptors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from vditrack.annotation.recordings import Source
from vditrack.annotation.sources import list_sources
from vditrack.arrays import Frame, Image
from vditrack.bundle.distillation import Recording
from vditrack.errors import InputError
from vditrack.io.decoding.image_folders import is_image_folder
from vditrack.io.frame_source import FrameSource, open_source
from vditrack.io.rosbag.bags import is_bag, open_bag
from vditrack.io.rosbag.depth_images import list_topics_without_depth
from vditrack_export.tiny.clip_store import FRAMES, ClipStore, StoredClip
from vditrack_export.tiny.model import STRIDE
from vditrack_export.tiny.rendering import Report
from vditrack_export.tiny.teacher import Teacher, fit_grid

LONGEST_GAP = 1.0
"""The largest time between two frames of a clip, in seconds."""
CLIPS_PER_SECOND = 2.0
"""Clips of a second of footage, unless their number is given."""
FEWEST, MOST = 64, 4000
"""Bounds of the number of clips, unless it is given."""
HELD_OUT = 6
"""One in so many pictures is kept from rendering, for validation."""


@dataclass(frozen=True)
class Footage:
    """A recording that can be opened."""

    source: Source
    recording: Recording
    rate: float
    """Mean frames a second."""

    def open(self) -> FrameSource:
        """Open it to be read."""
        one = self.source
        return open_source(one.path, one.topic, one.start, one.end, episode=one.episode)


@dataclass(frozen=True)
class PlannedClip:
    """Four evenly spaced frames of a recording."""

    footage: int
    """Number of the recording."""
    first: int
    gap: int
    """Frames from one to the next."""

    @property
    def last(self) -> int:
        """The last frame."""
        return self.first + (FRAMES - 1) * self.gap


def survey_footage(arguments: Sequence[str], report: Report) -> list[Footage]:
    """Decode all recordings once, and return those that have enough frames.

    Args:
        arguments: as `list_sources` takes them: videos, folders of images, bags, LeRobot data sets,
            folders that have some, patterns or manifests.
        report: called with the recordings that were read, and those in all.

    Raises:
        InputError: A recording cannot be read, or none has as many frames as a clip.

    """
    found = []
    listed = list_sources(arguments)
    remote = next((source for source in listed if source.remote is not None), None)
    if remote is not None:
        raise InputError(f"{remote.place} is not on a disk. Copy the recordings of --videos.")
    sources = [one for source in listed for one in _list_topics(source)]
    for number, source in enumerate(sources):
        report(number, len(sources))
        opened = open_source(
            source.path, source.topic, source.start, source.end, episode=source.episode
        )
        frames = len(opened)
        if frames < FRAMES:
            continue
        rate = (frames - 1) / max(float(opened.times[-1] - opened.times[0]), 1e-3)
        recording = Recording(name=_name(source), frames=frames, sha256=opened.digest)
        found.append(Footage(source, recording, rate))
    report(len(sources), len(sources))
    if not found:
        raise InputError(f"no recording of --videos has {FRAMES} frames. Give longer ones.")
    return found


def _list_topics(source: Source) -> list[Source]:
    """Return a source for each image topic of a bag, or the source itself."""
    path = source.path
    if source.topic is not None or not is_bag(path) or is_image_folder(path):
        return [source]
    with open_bag(path) as bag:
        topics = list_topics_without_depth(bag)
    return [replace(source, topic=topic) for topic in topics]


def _name(source: Source) -> str:
    parts = [source.path.name or str(source.path)]
    if source.episode is not None:
        parts.append(f"episode {source.episode}")
    if source.topic is not None:
        parts.append(source.topic)
    return ", ".join(parts)


def count_clips(footage: Sequence[Footage]) -> int:
    """Return the number of clips that is taken of footage, unless the user gives one."""
    seconds = sum(each.recording.frames / each.rate for each in footage)
    return int(np.clip(CLIPS_PER_SECOND * seconds, FEWEST, MOST))


def plan_clips(
    footage: Sequence[Footage], count: int, temporal_stride: int, seed: int
) -> list[PlannedClip]:
    """Choose clips evenly from all footage, ordered by recording and by their last frame.

    Args:
        footage: the recordings.
        count: the number of clips.
        temporal_stride: frames of clips are apart by a multiple of it, if the recording is long
            enough: others have no description of their own.
        seed: of all choices.

    """
    rng = np.random.default_rng((seed, 1))
    lengths = np.array([each.recording.frames for each in footage], np.float64)
    ends = np.cumsum(lengths)
    # One clip from each of `count` equal parts of the whole.
    places = (np.arange(count) + rng.random(count)) * ends[-1] / count
    clips = []
    for place in places:
        number = min(int(np.searchsorted(ends, place, side="right")), len(footage) - 1)
        frames = footage[number].recording.frames
        most = max(1, min(round(LONGEST_GAP * footage[number].rate), (frames - 1) // (FRAMES - 1)))
        gap = round(float(np.exp(rng.uniform(0, np.log(most)))))
        whole = max(temporal_stride, gap // temporal_stride * temporal_stride)
        gap = whole if whole * (FRAMES - 1) < frames else gap
        room = frames - 1 - (FRAMES - 1) * gap
        first = min(int(place - (ends[number] - frames)), room)
        clips.append(PlannedClip(number, max(first, 0), gap))
    return sorted(clips, key=lambda clip: (clip.footage, clip.last, clip.first))


def store_footage(
    store: ClipStore,
    footage: Sequence[Footage],
    clips: Sequence[PlannedClip],
    teacher: Teacher,
    size: tuple[int, int],
    report: Report,
) -> None:
    """Store the clips that a store lacks, with the teacher's descriptors.

    Args:
        store: the store of all clips.
        footage: the recordings.
        clips: the clips; see `plan_clips`.
        teacher: describes them.
        size: (height, width) of the stored frames, in pixels.
        report: see `Report`.

    Raises:
        InputError: A recording has changed since it was surveyed, or the disk is full.

    """
    missing = store.missing()
    wanted = [clips[number] for shard in missing for number in store.clips_of(shard)]
    done = len(store) - len(wanted)
    report(done, len(store))
    stored: list[StoredClip] = []
    shards = iter(missing)
    shard = next(shards, None)
    for clip, frames in _read_clips(footage, wanted, between=teacher.reads_between):
        stored.append(_describe(clip, frames, teacher, size))
        done += 1
        report(done, len(store))
        if shard is not None and len(stored) == len(store.clips_of(shard)):
            store.write(shard, stored)
            stored, shard = [], next(shards, None)


def _describe(
    clip: PlannedClip, frames: Sequence[Frame], teacher: Teacher, size: tuple[int, int]
) -> StoredClip:
    """Return a clip of frames, or of all frames from its first to its last."""
    rows, columns = (side // STRIDE for side in size)
    kept = range(0, len(frames), clip.gap) if len(frames) > FRAMES else range(FRAMES)
    described = teacher.describe(np.stack(frames))[list(kept)]
    return StoredClip(
        np.stack([resize_frame(frames[number], size) for number in kept]),
        fit_grid(described, rows, columns),
        np.empty((0, FRAMES, 2), np.float32),
        np.empty((0, FRAMES), np.bool_),
    )


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """Resize a frame to (height, width) as the runtime does."""
    height, width = size
    shrinks = frame.shape[0] > height or frame.shape[1] > width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), np.uint8)


def _read_clips(
    footage: Sequence[Footage], clips: Sequence[PlannedClip], *, between: bool
) -> Iterator[tuple[PlannedClip, list[Frame]]]:
    """Yield clips with their frames, with those between if asked; each recording is read once."""
    for number, one in enumerate(footage):
        waiting = [clip for clip in clips if clip.footage == number]
        if waiting:
            opened = one.open()
            if opened.digest != one.recording.sha256:
                raise InputError(f"{one.source.path} has changed meanwhile. Run the command again.")
            yield from _read_one(opened, waiting, between=between)


def _read_one(
    source: FrameSource, clips: Sequence[PlannedClip], *, between: bool
) -> Iterator[tuple[PlannedClip, list[Frame]]]:
    waiting = deque(clips)
    frames: dict[int, Frame] = {}
    first = min(clip.first for clip in clips)
    for number, timed in enumerate(source.read(first), first):
        frames[number] = timed.frame
        while waiting and waiting[0].last == number:
            clip = waiting.popleft()
            step = 1 if between else clip.gap
            yield clip, [frames[n] for n in range(clip.first, clip.last + 1, step)]
        if not waiting:
            return
        oldest = min(clip.first for clip in waiting)
        for passed in [n for n in frames if n < oldest]:
            del frames[passed]


def split_pictures(store: ClipStore) -> tuple[list[Image], list[Image]]:
    """Return pictures for the surfaces of rendered scenes: for training, and for validation.

    They are the first frames of the clips; the last ones are those for validation.
    """
    pictures = [np.array(store.read(number).frames[0]) for number in range(len(store))]
    held_out = max(1, len(pictures) // HELD_OUT)
    return pictures[:-held_out] or pictures, pictures[-held_out:]
