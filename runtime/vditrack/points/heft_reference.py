"""Tracking as HeFT does it (arXiv 2512.04619, section 3), to reproduce the paper with a bundle.

A clip is tracked in chunks of one window of the model, and each begins with the last frame of the
chunk before, whose features are worked out anew. In each frame every pixel within reach is compared
with the template, as if descriptors were upsampled to pixels, by a softmax without temperature;
`matching` looks at half cells first and may miss a best pixel that rises between them. The backward
check goes back to the chunk's first frame, or to the query if that is later. Nothing is refined on
pixels, and no similarity is asked for. What the paper leaves open is chosen so:

- templates and visibility are carried from chunk to chunk: where a point is hidden in the frame
  that two chunks share, there is nothing else to know it by;
- for the check, a point counts as visible in the first frame of its chunk, as it does in the frame
  of its query; else one that is hidden there could not be compared, and never be seen again;
- the track backward keeps the template that it starts with.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from vditrack.arrays import Bools, Floats, FrameClip, Indices
from vditrack.bundle.configuration import Matching
from vditrack.coordinates import (
    Reals,
    cells_from_pixels,
    linear_weights,
    pixel_centres,
    pixel_indices,
)
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import clip_features
from vditrack.points.tracks import Tracks

_BLOCK = 256
"""Points looked for at a time."""

Chunk = tuple[int, list[FeatureMap]]
"""Index of the first frame, and the feature maps of all."""


def track_reference(
    extractor: FeatureExtractor,
    frames: FrameClip,
    queries: Floats,
    settings: Matching,
    progress: Callable[[int, int], None] | None = None,
) -> Tracks:
    """Track points through a clip by HeFT's formulation, with the maps of one chunk in memory.

    Args:
        extractor: a bundle's graphs.
        frames: uint8 [T, H, W, 3] RGB.
        queries: [N, 3] (t, x, y) in pixels of the frames, already checked.
        settings: the radii, the visibility threshold and the template update are read, in model
            pixels; HeFT has no other.
        progress: called with (frames tracked, frames in all) after each chunk.

    Returns:
        Tracks over all T frames. A point asked for after frame 0 starts there, and in the frames
        before stays at that place, invisible.

    """
    scale = extractor.grid.model_from_frame(frames.shape[1:3])
    points = _Points(queries, len(frames), scale, settings)
    for first, maps in chunks(extractor, frames, settings.reference_chunk):
        points.follow(first, maps)
        if progress is not None:
            progress(first + len(maps), len(frames))
    return points.tracks()


def chunks(extractor: FeatureExtractor, frames: FrameClip, length: int) -> Iterator[Chunk]:
    """Split a clip into chunks that overlap by one frame, and describe them.

    A chunk is a window of the model, except where a window describes fewer than two frames or not
    all of its own. Each frame then has the features that it has in every mode, in chunks of
    ``length`` frames.
    """
    if 1 < extractor.window == extractor.described:
        return _window_chunks(extractor, frames)
    return _overlapping(clip_features(extractor, frames), len(frames), length)


def _window_chunks(extractor: FeatureExtractor, frames: FrameClip) -> Iterator[Chunk]:
    """Chunks of a window each. The last may be shorter: its window is that which ends the clip."""
    count, length = len(frames), extractor.window
    for first in range(0, max(count - 1, 1), length - 1):
        begin = max(0, min(first, count - length))
        maps = list(clip_features(extractor, frames[begin : begin + length]))
        yield first, maps[first - begin :]


def _overlapping(features: Iterable[FeatureMap], count: int, length: int) -> Iterator[Chunk]:
    """Yield chunks of ``length`` of the maps of ``count`` frames; the last may be shorter."""
    maps: list[FeatureMap] = []
    for frame, newest in enumerate(features):
        maps.append(newest)
        if len(maps) == length or frame == count - 1:
            yield frame - len(maps) + 1, maps
            maps = [newest]


class _Points:
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

    def follow(self, first: int, maps: list[FeatureMap]) -> None:
        """Track through a chunk; the chunk before has tracked its first frame."""
        if first == 0:
            channels = maps[0].descriptors.shape[2]
            self._templates = np.zeros((len(self._start), channels), np.float32)
        for index, features in enumerate(maps):
            if index:
                self._step(first, maps[: index + 1])
            # In the frame that two chunks share, from the features of the later.
            new = self._start == first + index
            self._templates[new] = features.sample(
                self._trail[new, first + index], self._settings.template_falloff
            )

    def _step(self, first: int, maps: list[FeatureMap]) -> None:
        """Find the points that have started in the newest of a chunk's maps so far."""
        settings, newest, frame = self._settings, maps[-1], first + len(maps) - 1
        alive = np.flatnonzero(self._start < frame)
        before, limited = self._trail[alive, frame - 1], self._visible[alive, frame - 1]
        templates = self._templates[alive]
        self._trail[alive, frame] = _found(templates, newest, before, limited, settings)
        error = self._backward_error(alive, first, maps)
        # A half exactly at the threshold, as in the other modes.
        confidence = np.asarray(0.5 ** (error / settings.visibility_threshold), np.float32)
        self._error[alive, frame], self._confidence[alive, frame] = error, confidence
        self._visible[alive, frame] = confidence >= 0.5
        seen, weight = alive[confidence >= 0.5], settings.template_update
        sampled = newest.sample(self._trail[seen, frame], settings.template_falloff)
        self._templates[seen] = (1 - weight) * self._templates[seen] + weight * sampled

    def _backward_error(self, points: Indices, first: int, maps: list[FeatureMap]) -> Floats:
        """RMS distance [n] of trails in the chunk to the tracks found from their ends backward."""
        last = len(maps) - 1
        begin = np.maximum(self._start[points] - first, 0)
        trail = self._trail[points, first : first + last + 1]
        visible = self._visible[points, first : first + last + 1]
        falloff, position = self._settings.template_falloff, trail[:, last].copy()
        templates = maps[last].sample(position, falloff)
        limited = np.ones(len(points), np.bool_)
        squared, count = np.zeros(len(points)), np.zeros(len(points))
        for index in range(last - 1, -1, -1):
            alive = begin <= index
            position[alive] = _found(
                templates[alive], maps[index], position[alive], limited[alive], self._settings
            )
            compared = alive & (visible[:, index] | (begin == index))
            squared += compared * ((position - trail[:, index]) ** 2).sum(axis=1)
            count += compared
            limited = visible[:, index]
        return np.sqrt(squared / count).astype(np.float32)

    def tracks(self) -> Tracks:
        """What was tracked, in pixels of the frames."""
        points = np.asarray(self._trail / self._scale, np.float32)
        return Tracks(self._queries, points, self._visible, self._confidence, self._error)


def _found(
    templates: Floats, target: FeatureMap, around: Floats, limited: Bools, settings: Matching
) -> Floats:
    """Positions [N, 2] of templates [N, C], where limited [N] within the radius of ``around``."""
    grid = target.grid
    lengths = np.maximum(np.linalg.norm(templates, axis=1, keepdims=True), 1e-12)
    cells = target.descriptors.reshape(-1, templates.shape[1])
    dots = (templates / lengths @ cells.T).reshape(-1, grid.rows, grid.columns)
    radius = np.where(limited, settings.search_radius, np.inf).astype(np.float32)
    positions = np.zeros_like(around)
    near, free = np.flatnonzero(limited), np.flatnonzero(~limited)
    # Pixels of many windows are large, and a window without a limit is the whole map.
    blocks = [*np.array_split(near, len(near) // _BLOCK + 1), *free[:, None]]
    for points in filter(len, blocks):
        search = _Search(target, dots[points], around[points], radius[points])
        positions[points] = search.position(settings.argmax_radius, settings.temperature)
    return positions


@dataclass(frozen=True)
class _Search:
    """Search every pixel that n templates may be at."""

    target: FeatureMap
    dots: Floats
    """[n, rows, columns]: dot products with the descriptors of the cells."""
    around: Floats
    """[n, 2] (x, y) in model pixels"""
    radius: Floats
    """[n]; either all finite or all inf."""

    def position(self, argmax_radius: float, temperature: float) -> Floats:
        """Mean place [n, 2] over a disc around the best pixel, weighted by the softmax."""
        row, column = self._best()
        offsets = np.arange(-int(argmax_radius), int(argmax_radius) + 1)
        cosines = self._cosines(row[:, None] + offsets, column[:, None] + offsets)
        disc = offsets[:, None] ** 2 + offsets**2 <= argmax_radius**2
        peak = cosines[:, len(offsets) // 2, len(offsets) // 2]
        weights = np.exp((cosines - peak[:, None, None]) / temperature) * disc
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        # Mean offsets, not mean coordinates: their rounding does not grow with the picture.
        shift = np.stack([weights.sum(axis=1) @ offsets, weights.sum(axis=2) @ offsets], axis=1)
        best = np.stack([pixel_centres(column), pixel_centres(row)], axis=1)
        return np.asarray(best + shift, np.float32)

    def _best(self) -> tuple[Indices, Indices]:
        """Row and column [n] of the best pixel."""
        grid, reach = self.target.grid, self.radius.max()
        if np.isinf(reach):
            rows, columns = np.arange(grid.height)[None], np.arange(grid.width)[None]
        else:
            # No pixel of the map is further from a point in it than the map is long.
            reach = min(int(reach) + 1, max(grid.height, grid.width))
            offsets = np.arange(-reach, reach + 1)
            rows = pixel_indices(self.around[:, 1:]) + offsets
            columns = pixel_indices(self.around[:, :1]) + offsets
        cosines = self._cosines(rows, columns)
        best = cosines.reshape(len(cosines), -1).argmax(axis=1)
        each = np.arange(len(best))
        return rows[each, best // columns.shape[1]], columns[each, best % columns.shape[1]]

    def _cosines(self, rows: Indices, columns: Indices) -> Floats:
        """Cosines [n, R, K] at pixels [n, R] x [n, K]; -inf outside the map and the radius."""
        grid = self.target.grid
        y, x = pixel_centres(rows), pixel_centres(columns)
        row_nodes, row_weights = _weights(y, grid.stride, grid.rows)
        column_nodes, column_weights = _weights(x, grid.stride, grid.columns)
        each = np.arange(len(rows))[:, None, None]
        crop = self.dots[each, row_nodes[:, :, None], column_nodes[:, None, :]]
        inside_rows = np.clip(rows, 0, grid.height - 1)[:, :, None]
        inside_columns = np.clip(columns, 0, grid.width - 1)[:, None, :]
        cosines = row_weights @ crop @ column_weights.transpose(0, 2, 1)
        cosines *= self.target.pixel_inverse_norms[inside_rows, inside_columns]
        dy, dx = y - self.around[:, 1:], x - self.around[:, :1]
        outside = dy[:, :, None] ** 2 + dx[:, None, :] ** 2 > (self.radius**2)[:, None, None]
        outside |= inside_rows != rows[:, :, None]
        outside |= inside_columns != columns[:, None, :]
        cosines[outside] = -np.inf
        return np.asarray(cosines, np.float32)


def _weights(pixels: Reals, stride: int, count: int) -> tuple[Indices, Floats]:
    """Cells [n, K] around ascending pixel coordinates [n, S] of an axis, and weights [n, S, K]."""
    return linear_weights(cells_from_pixels(pixels, stride), count)
