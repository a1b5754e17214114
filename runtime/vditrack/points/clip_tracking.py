"""Point tracking through a whole clip, forward and backward from each query."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike

from vditrack.arrays import Doubles, Floats, FrameClip
from vditrack.bundle.configuration import LiveTracking, Matching
from vditrack.errors import InputError
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import causal_features, clip_features
from vditrack.input_checks.arrays import check_clip, validate_queries
from vditrack.points.base import PointTracker
from vditrack.points.factory import create_point_tracker
from vditrack.points.heft_reference import track_reference
from vditrack.points.tracks import Tracks

TrackMode = Literal["offline", "causal", "reference"]
"""How a clip is tracked.

- ``offline``: windows of frames also look ahead.
- ``causal``: features come from frames before alone, as in a stream: where latents share frames,
  the frames between have none.
- ``reference``: HeFT's own formulation, chunk by chunk and forward only (`heft_reference`).
"""
Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""
Step = TypeVar("Step")
ReadFeatures = Callable[[FeatureExtractor, FrameClip], Iterator[FeatureMap | None]]
"""Yields the feature map of each frame of a clip; None for a frame that has none."""


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
    """Track points through a clip.

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
    if mode not in get_args(TrackMode):
        raise InputError(
            f"there is no mode {mode!r}. Give one of {', '.join(get_args(TrackMode))}."
        )
    check_clip(frames)
    checked = validate_queries(queries, frames)
    if mode == "reference":
        return track_reference(extractor, frames, checked, settings, progress)
    tracks = _empty_tracks(checked, len(frames))
    intervals = np.ones(len(frames)) if intervals is None else intervals
    last_query = int(checked[:, 0].max(initial=0))
    counter = _StepCounter(len(frames) + (last_query + 1 if last_query else 0), progress)
    maps: list[FeatureMap | None] = []
    read_features: ReadFeatures = causal_features if mode == "causal" else clip_features
    forward = enumerate(_keep_first(read_features(extractor, frames), maps, last_query + 1))
    tracker = create_point_tracker(extractor.grid, settings, bridging)
    _track_steps(tracks, frames, intervals, counter.count(forward), tracker)
    if last_query > 0:
        # Points that are queried later in the clip are tracked back to its start as well.
        backward = ((frame, maps[frame]) for frame in range(last_query, -1, -1))
        tracker = create_point_tracker(extractor.grid, settings, bridging)
        _track_steps(tracks, frames, intervals, counter.count(backward), tracker)
    return tracks


def _track_steps(
    tracks: Tracks,
    frames: FrameClip,
    intervals: Doubles,
    steps: Iterable[tuple[int, FeatureMap | None]],
    tracker: PointTracker,
) -> None:
    """Track every point from its query on in the order of the steps, and write into ``tracks``.

    The intervals [T] are those between each frame and the one before, in either direction.
    """
    before = 0
    for frame, features in steps:
        tracker.advance(features, frames[frame], float(intervals[max(before, frame)]))
        before = frame
        starting = np.flatnonzero(tracks.queries[:, 0] == frame)
        if len(starting):
            tracker.add(starting, tracks.queries[starting, 1:])
        tracks.points[tracker.ids, frame] = tracker.points
        tracks.visible[tracker.ids, frame] = tracker.visible
        tracks.confidence[tracker.ids, frame] = tracker.confidence
        tracks.forward_backward_error[tracker.ids, frame] = tracker.forward_backward_error


class _StepCounter:
    """Counts steps and reports them to a progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def count(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Yield the steps; report each once the next one is asked for."""
        for step in steps:
            yield step
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)


def _keep_first(
    features: Iterable[FeatureMap | None], kept: list[FeatureMap | None], needed: int
) -> Iterator[FeatureMap | None]:
    """Yield all features, and keep as many of the first as the pass backward needs."""
    for features_of_frame in features:
        if needed > 1 and len(kept) < needed:
            kept.append(features_of_frame)
        yield features_of_frame


def _empty_tracks(queries: Floats, frames: int) -> Tracks:
    shape = (len(queries), frames)
    return Tracks(
        queries=queries,
        points=np.zeros((*shape, 2), np.float32),
        visible=np.zeros(shape, np.bool_),
        confidence=np.zeros(shape, np.float32),
        forward_backward_error=np.full(shape, np.inf, np.float32),
    )
