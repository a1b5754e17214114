"""Point tracking through a clip of any length, forward and backward from each query."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vditrack.arrays import Doubles, Floats, Frame, FrameClip, Grey
from vditrack.bundle.configuration import LiveTracking, Matching
from vditrack.errors import InputError
from vditrack.features.clip_frames import ArrayFrames, ClipFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.kept_maps import KeptMaps
from vditrack.features.restarting import features_from, first_frame_read, keeps_state
from vditrack.input_checks.arrays import check_clip, validate_queries
from vditrack.points.base import PointTracker
from vditrack.points.block_paths import PathChooser, make_reader
from vditrack.points.factory import create_point_tracker
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.gap_filling import GapFiller
from vditrack.points.heft_reference import track_reference
from vditrack.points.optical_flow import grey_levels
from vditrack.points.track_blocks import TrackBlock, collect_tracks, empty_block, write_frame
from vditrack.points.tracker_state import list_state, restore_state
from vditrack.points.tracks import Tracks

TrackMode = Literal["offline", "causal", "reference"]
"""How a clip is tracked.

- ``offline``: windows of frames also look ahead.
- ``causal``: features come from frames before alone, as in a stream: where latents share frames,
  the frames between have none.
- ``reference``: HeFT's own formulation, chunk by chunk and forward only (`heft_reference`).
"""
VideoMode = Literal["offline", "causal"]
"""How a clip of any length is tracked: as `TrackMode`, without ``reference``."""
Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""
Checkpoint = Mapping[str, NDArray[Any]]
"""The state of tracking between two blocks, by name."""

_BLOCK = 64
"""Frames of a block in which no gaps are filled. Those of a block that is tracked backward are in
memory, as grey levels."""


class Step(NamedTuple):
    """What a tracker needs of a frame."""

    frame: int
    """Number of the frame."""
    image: Grey
    """Grey levels uint8 [H, W]."""
    features: FeatureMap | None
    """None if the frame has no feature map."""


class TrackedClip(NamedTuple):
    """A clip and what is tracked in it."""

    frames: ClipFrames
    """T frames."""
    queries: Floats
    """float32 [N, 3] (t, x, y), checked."""
    intervals: Doubles
    """[T] usual frame intervals between each frame and the one before."""


def read_steps(
    extractor: FeatureExtractor, frames: ClipFrames, first: int, *, causal: bool
) -> Iterator[Step]:
    """Yield the frames of a clip from number ``first`` on with their maps.

    Args:
        extractor: the bundle's graphs.
        frames: the clip.
        first: number of the first frame.
        causal: whether maps are those of a stream, or of windows that also look ahead.

    """
    images: list[Grey] = []
    begin = first_frame_read(extractor, first, causal=causal)

    def read() -> Iterator[Frame]:
        for number, (frame, _) in enumerate(frames.read(begin), begin):
            if number >= first:
                images.append(grey_levels(frame))
            yield frame

    maps = features_from(extractor, read(), len(frames), first, causal=causal)
    for number, features in enumerate(maps, first):
        yield Step(number, images.pop(0), features)


class ClipTracking(Iterator[TrackBlock]):
    """Tracks points through a clip block by block, with memory that does not grow."""

    def __init__(
        self,
        extractor: FeatureExtractor,
        clip: TrackedClip,
        settings: tuple[Matching, LiveTracking],
        mode: VideoMode,
        *,
        kept_bytes: float,
        progress: Progress | None = None,
    ) -> None:
        """Start before the first frame.

        Args:
            extractor: the bundle's graphs.
            clip: the frames and the points.
            settings: of the point tracker, and of optical flow through frames without a map.
            mode: see `TrackMode`.
            kept_bytes: memory for feature maps that the pass backward needs again. If it is too
                small, they are computed again; or kept in a file, where the bundle's graphs keep a
                state from the first frame on.
            progress: called with (steps done, steps in all).

        """
        frames, queries, intervals = clip
        self._extractor, self._frames, self._queries = extractor, frames, queries
        self._settings, self._intervals, self._progress = settings, intervals, progress
        self._causal = mode == "causal"
        self._last_query = int(queries[:, 0].max(initial=0))
        self._total = len(frames) + (self._last_query + 1 if self._last_query else 0)
        self._keeps_state = keeps_state(extractor, causal=self._causal)
        self._kept_bytes = kept_bytes
        self._kept: KeptMaps | None = KeptMaps(kept_bytes) if self._last_query else None
        self._tracker = self._new_tracker()
        flow = None if self._causal else settings[0].flow_tracking
        self._gaps, self._paths = (None, None) if flow is None else (flow.gaps, flow.paths)
        self._path_reader = None
        if flow is not None and flow.paths is not None:
            self._path_reader = make_reader(extractor.grid, settings[0], flow)
        self._block = _BLOCK if self._gaps is None else self._gaps.frames
        self._backward, self._next = False, 0
        self._blocks = self._run()

    def __next__(self) -> TrackBlock:
        """Return the next block."""
        return next(self._blocks)

    @property
    def steps_done(self) -> int:
        """Steps of tracking that are done, of those in all."""
        if not self._backward:
            return self._next
        return len(self._frames) + self._last_query - self._next

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """Return the state after the last block, from which `resume` goes on."""
        place = np.array([self._backward, self._next], np.int64)
        return {"place": place, **list_state(self._tracker)}

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same clip, queries and settings, before the first block.

        The blocks that follow are those that would have followed it.
        """
        backward, following = checkpoint["place"].tolist()
        self._backward, self._next = bool(backward), following
        state = {name: array for name, array in checkpoint.items() if name != "place"}
        restore_state(self._tracker, self._extractor.grid, state)
        if not self._keeps_state:
            # The maps before the checkpoint were not kept; they are computed again.
            self._kept = None

    def _run(self) -> Iterator[TrackBlock]:
        if self.steps_done == self._total:
            return
        yield from self._run_forward()
        if not self._last_query:
            return
        if not self._backward:
            self._backward, self._next = True, self._last_query
            self._tracker = self._new_tracker()
        # Points that are queried later in the clip are tracked back to its start as well.
        while self._next >= 0:
            first = self._next // self._block * self._block
            steps = self._read_back(first, self._next + 1)
            yield self._track(steps[::-1], first, self._next + 1)

    def _run_forward(self) -> Iterator[TrackBlock]:
        begin = self._next
        if self._kept is not None and self._keeps_state:
            # Also after a checkpoint, the pass backward needs the maps of all frames before.
            begin = 0
        elif self._backward:
            return
        steps = self._keep(self._read_steps(begin), begin)
        if self._backward:
            for _ in islice(steps, self._last_query + 1):
                pass
            return
        for _ in islice(steps, self._next - begin):
            pass
        while self._next < len(self._frames):
            end = min(len(self._frames), (self._next // self._block + 1) * self._block)
            yield self._track(islice(steps, end - self._next), self._next, end)

    def _track(self, steps: Iterable[Step], first: int, end: int) -> TrackBlock:
        """Return the block of the frames from ``first`` to ``end``, tracked step by step."""
        times = self._frames.times[first:end]
        block = empty_block(self._queries, first, times, backward=self._backward)
        tracker, turn = self._tracker, self._last_query
        filler = chooser = None
        if isinstance(tracker, FlowTracker):
            if self._gaps is not None:
                filler = GapFiller(block, tracker, self._gaps)
            if self._path_reader is not None:
                chooser = PathChooser(block, tracker, self._path_reader)
        for frame, image, features in steps:
            since = frame + 1 if self._backward and frame != turn else frame
            intervals = float(self._intervals[since])
            tracker.advance(features, image, intervals)
            starting = np.flatnonzero(self._queries[:, 0] == frame)
            if len(starting):
                tracker.add(starting, self._queries[starting, 1:])
            write_frame(block, frame, tracker)
            if filler is not None:
                filler.observe(frame, image, features, intervals)
            if chooser is not None:
                chooser.observe(frame, image, features)
            self._next = frame - 1 if self._backward else frame + 1
            if self._progress is not None:
                self._progress(self.steps_done, self._total)
        if filler is not None:
            filler.fill()
        if chooser is not None and self._paths is not None:
            chooser.choose(self._paths)
        return block

    def _read_steps(self, first: int) -> Iterator[Step]:
        return read_steps(self._extractor, self._frames, first, causal=self._causal)

    def _keep(self, steps: Iterator[Step], begin: int) -> Iterator[Step]:
        """Yield the steps from frame ``begin`` on, and keep the maps for the pass backward."""
        for step in steps:
            if step.frame == begin and step.features is not None and self._kept is not None:
                needed = (self._last_query + 1) * step.features.descriptors.nbytes
                if needed > self._kept_bytes and not self._keeps_state:
                    self._kept = None
            if self._kept is not None and step.frame <= self._last_query:
                self._kept.append(step.features)
            yield step

    def _read_back(self, first: int, end: int) -> list[Step]:
        """Return the frames from ``first`` to ``end`` with their maps."""
        if self._kept is None:
            return list(islice(self._read_steps(first), end - first))
        kept, frames = self._kept, islice(self._frames.read(first), end - first)
        return [
            Step(number, grey_levels(frame), kept.read(number))
            for number, (frame, _) in enumerate(frames, first)
        ]

    def _new_tracker(self) -> PointTracker:
        return create_point_tracker(self._extractor.grid, *self._settings)


def track_clip(
    extractor: FeatureExtractor,
    frames: FrameClip,
    queries: ArrayLike,
    settings: Matching,
    bridging: LiveTracking,
    mode: TrackMode = "offline",
    intervals: Doubles | None = None,
    progress: Progress | None = None,
) -> Tracks:
    """Track points through a clip that is in memory.

    Args:
        extractor: the bundle's graphs.
        frames: uint8 [T, H, W, 3] RGB.
        queries: [N, 3] (t, x, y): a frame's index and a position in its pixels.
        settings: of the point tracker.
        bridging: of optical flow through frames without a feature map.
        mode: see `TrackMode`.
        intervals: [T] usual frame intervals between each frame and the one before; more than 1
            where frames are missing. By default none is.
        progress: called with (steps done, steps in all).

    Returns:
        Tracks over all T frames. Each depends on its own query alone.

    Raises:
        InputError: The frames or queries are no such arrays, a query lies outside the clip, or
            there is no such mode.

    """
    _check_mode(mode, TrackMode)
    check_clip(frames)
    checked = validate_queries(queries, len(frames), frames.shape[1:3])
    source = ArrayFrames(frames, np.arange(len(frames), dtype=np.float64))
    if mode == "reference":
        return track_reference(extractor, source, checked, settings, progress)
    clip = TrackedClip(
        source,
        checked,
        np.ones(len(frames)) if intervals is None else intervals,
    )
    blocks = ClipTracking(
        extractor,
        clip,
        (settings, bridging),
        mode,
        # As many as the frames, which are in memory themselves.
        kept_bytes=np.inf,
        progress=progress,
    )
    return collect_tracks(blocks, checked, len(frames))


def check_video_mode(mode: str) -> None:
    """Check that there is a mode for clips of any length.

    Raises:
        InputError: There is none.

    """
    _check_mode(mode, VideoMode)


def _check_mode(mode: str, modes: Any) -> None:  # noqa: ANN401
    if mode not in get_args(modes):
        raise InputError(f"there is no mode {mode!r}. Give one of {', '.join(get_args(modes))}.")
