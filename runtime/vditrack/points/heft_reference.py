"""Tracking as HeFT's public code does it (arXiv 2512.04619), to reproduce the paper with a bundle.

A clip is tracked in chunks of one window of the model. In each frame every pixel within the search
radius is compared with the template, as if descriptors were upsampled to pixels, with a softmax
without temperature. The search has no radius where the point was invisible in the frame before. The
backward check goes back to the chunk's first frame, or to the query if that is later. Nothing is
refined on pixels, and there is no similarity threshold.

The paper leaves these points open; the public code does them so, and so does this module:

- A later chunk has the maps of its own frames only, but is tracked from the last frame of the chunk
  before. Its n maps are resampled linearly in time to n + 1 frames, so a frame is compared with
  features from up to half a frame away.
- The backward track updates its template, in each frame in which the forward track is visible.
- The comparison counts only frames before the current one in which the point is visible. A point
  that is invisible in the frame that two chunks share has nothing to compare in the later one: it
  is invisible there, and in every chunk that follows.
- Templates, and their updates, are read from a map upsampled to pixels.

The other modes do none of this. Their features are those of the frame itself, and a lost point can
return at any time.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec
import numpy as np

from vditrack.arrays import Floats, Indices
from vditrack.bundle.configuration import Matching
from vditrack.features.clip_frames import ClipFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap, stretch_frames
from vditrack.features.windows import clip_features
from vditrack.points.descriptor_matching import match_exhaustively
from vditrack.points.tracks import Tracks

Chunk = tuple[int, list[FeatureMap]]
"""Index of the frame that a chunk is tracked from, and the feature maps of all its frames."""


def track_reference(
    extractor: FeatureExtractor,
    clip: ClipFrames,
    queries: Floats,
    settings: Matching,
    progress: Callable[[int, int], None] | None = None,
) -> Tracks:
    """Track points through a clip by HeFT's formulation, with the maps of one chunk in memory.

    Args:
        extractor: the bundle's graphs.
        clip: T frames, which are read once, but for those of a shorter last chunk.
        queries: [N, 3] (t, x, y) in pixels of the frames, already checked.
        settings: the radii, the visibility threshold and the template update are used, in model
            pixels; HeFT has no others.
        progress: called with (frames tracked, frames in all) after each chunk.

    Returns:
        Tracks over all T frames. A point that is queried after frame 0 starts there; in the frames
        before, it is invisible at the query's position.

    """
    scale = extractor.grid.model_from_frame(clip.size)
    tracks = _ChunkTracker(queries, len(clip), scale, settings)
    for first, maps in split_into_chunks(extractor, clip, settings.reference_chunk):
        tracks.track_chunk(first, maps)
        if progress is not None:
            progress(first + len(maps), len(clip))
    return tracks.result()


def split_into_chunks(
    extractor: FeatureExtractor, clip: ClipFrames, length: int
) -> Iterator[Chunk]:
    """Split a clip into chunks, and compute their feature maps.

    A chunk has the maps of ``length`` frames, or of a window of the model where a window describes
    all of its frames and more than one. Otherwise each frame has the features that it has in every
    mode. Chunks after the first begin one frame earlier, with the last frame of the chunk before:
    their maps are stretched by a frame. The last chunk may be shorter.
    """
    if 1 < extractor.window == extractor.described:
        parts = _split_into_windows(extractor, clip)
    else:
        frames = (timed.frame for timed in clip.read())
        parts = _split_maps(clip_features(extractor, frames), length)
    begin = 0
    for maps in parts:
        count = len(maps)
        yield (begin - 1, stretch_frames(maps, count + 1)) if begin else (begin, maps)
        begin += count


def _split_into_windows(
    extractor: FeatureExtractor, clip: ClipFrames
) -> Iterator[list[FeatureMap]]:
    """Yield the maps of a window each. A shorter last chunk is read from the clip's last window."""
    count, length = len(clip), extractor.window
    coming = clip.read()
    for first in range(0, count, length):
        begin = max(0, min(first, count - length))
        if begin < first:
            coming = clip.read(begin)
        frames = (timed.frame for timed in islice(coming, length))
        maps = list(clip_features(extractor, frames))
        yield maps[first - begin :]


def _split_maps(features: Iterable[FeatureMap], length: int) -> Iterator[list[FeatureMap]]:
    """Yield ``length`` maps at a time; the last list may be shorter."""
    remaining = iter(features)
    while maps := list(islice(remaining, length)):
        yield maps


class _ChunkTracker:
    """N points in a clip of T frames, in model pixels."""

    def __init__(self, queries: Floats, length: int, scale: Floats, settings: Matching) -> None:
        self._settings = msgspec.structs.replace(settings, temperature=1.0)
        self._queries, self._scale = queries, scale
        self._start = queries[:, 0].astype(np.int64)
        self._trail = np.repeat((queries[:, 1:] * scale)[:, None], length, axis=1)
        self._visible = np.arange(length) == self._start[:, None]
        self._confidence = self._visible.astype(np.float32)
        self._error = np.where(self._visible, 0, np.inf).astype(np.float32)
        self._templates = np.zeros((len(queries), 0), np.float32)

    def track_chunk(self, first: int, maps: list[FeatureMap]) -> None:
        """Track through a chunk, whose first frame the chunk before has tracked."""
        if first == 0:
            channels = maps[0].descriptors.shape[2]
            self._templates = np.zeros((len(self._start), channels), np.float32)
        falloff = self._settings.template_falloff
        for index, features in enumerate(maps):
            if index:
                self._track_frame(first, maps[: index + 1])
            elif first:
                continue  # The chunk before has read the templates of this frame.
            new = self._start == first + index
            self._templates[new] = features.sample_pixels(self._trail[new, first + index], falloff)

    def _track_frame(self, first: int, maps: list[FeatureMap]) -> None:
        """Track the points that have started into the newest of a chunk's maps so far."""
        settings, newest, frame = self._settings, maps[-1], first + len(maps) - 1
        alive = np.flatnonzero(self._start < frame)
        before, limited = self._trail[alive, frame - 1], self._visible[alive, frame - 1]
        found = match_exhaustively(self._templates[alive], newest, before, limited, settings)
        self._trail[alive, frame] = found.points
        error = self._backward_error(alive, first, maps)
        # One half exactly at the threshold, as in the other modes.
        confidence = np.asarray(0.5 ** (error / settings.visibility_threshold), np.float32)
        self._error[alive, frame], self._confidence[alive, frame] = error, confidence
        self._visible[alive, frame] = confidence >= 0.5
        seen, weight = alive[confidence >= 0.5], settings.template_update
        sampled = newest.sample_pixels(self._trail[seen, frame], settings.template_falloff)
        self._templates[seen] = (1 - weight) * self._templates[seen] + weight * sampled

    def _backward_error(self, points: Indices, first: int, maps: list[FeatureMap]) -> Floats:
        """Return the RMS distance [n] of trails to the tracks from their ends backward.

        The mean is over frames before the newest in which the point is visible; without any it is
        infinite.
        """
        last, falloff = len(maps) - 1, self._settings.template_falloff
        begin = np.maximum(self._start[points] - first, 0)
        trail = self._trail[points, first : first + last + 1]
        visible = self._visible[points, first : first + last + 1]
        position = trail[:, last].copy()
        templates = maps[last].sample_pixels(position, falloff)
        limited = np.ones(len(points), np.bool_)
        squared, count = np.zeros(len(points)), np.zeros(len(points))
        weight = self._settings.template_update
        for index in range(last - 1, -1, -1):
            alive = begin <= index
            position[alive] = match_exhaustively(
                templates[alive], maps[index], position[alive], limited[alive], self._settings
            ).points
            compared = alive & visible[:, index]
            squared += compared * ((position - trail[:, index]) ** 2).sum(axis=1)
            count += compared
            limited = visible[:, index]
            sampled = maps[index].sample_pixels(position[compared], falloff)
            templates[compared] = (1 - weight) * templates[compared] + weight * sampled
        mean = np.divide(squared, count, out=np.full(len(points), np.inf), where=count > 0)
        return np.asarray(np.sqrt(mean), np.float32)

    def result(self) -> Tracks:
        """Return the tracks, in pixels of the frames."""
        points = np.asarray(self._trail / self._scale, np.float32)
        return Tracks(self._queries, points, self._visible, self._confidence, self._error)
