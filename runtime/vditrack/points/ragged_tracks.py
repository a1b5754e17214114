"""Tracks of points that live for different parts of a clip."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Doubles, Floats, Indices
from vditrack.points.tracks import Tracks


class LivingPoints(NamedTuple):
    """The M points that live in a frame."""

    frame: int
    """Number of the frame."""
    ids: NDArray[np.int32]
    """[M], ascending; the first point of the clip has 0."""
    points: Floats
    """[M, 2] (x, y) in pixels of the frame; a guess where the point is invisible."""
    visible: Bools
    """[M]"""
    confidence: Floats
    """[M] in [0, 1]."""
    forward_backward_error: Floats
    """[M] in model pixels; inf where unknown."""


@dataclass(frozen=True)
class RaggedTracks:
    """Tracks of N points in R rows, sorted by frame, then by point.

    A point has a row for each frame from its query to the one in which it ended.
    """

    queries: Floats
    """[N, 3] (t, x, y): the query of each point, in pixels."""
    frames: NDArray[np.int32]
    """[R] numbers of frames."""
    ids: NDArray[np.int32]
    """[R] numbers of points."""
    points: Floats
    """[R, 2] (x, y) in pixels; a guess where the point is invisible."""
    visible: Bools
    """[R]"""
    confidence: Floats
    """[R] in [0, 1]."""
    forward_backward_error: Floats
    """[R] in model pixels; inf where unknown."""

    def select_points(self, kept: Indices) -> "RaggedTracks":
        """Return the tracks of some points, given by ascending numbers, which are numbered anew."""
        rows = np.isin(self.ids, kept)
        selected = {name: values[rows] for name, values in self._columns().items()}
        selected["ids"] = np.searchsorted(kept, selected["ids"]).astype(np.int32)
        return RaggedTracks(queries=self.queries[kept], **selected)

    def cut(self, first: int, end: int) -> "RaggedTracks":
        """Return the rows of the frames from ``first`` to ``end``, exclusive, of all points."""
        rows = self._find_rows(first, end)
        cut = {name: values[rows] for name, values in self._columns().items()}
        return RaggedTracks(queries=self.queries, **cut)

    def count_visible(self) -> Indices:
        """Return the number of frames [N] in which each point is visible."""
        return np.bincount(self.ids[self.visible], minlength=len(self.queries))

    def measure_variances(self, scale: Doubles) -> Doubles:
        """Return the variances [N, 2] of the visible positions of each point, times ``scale``."""
        ids, count = self.ids[self.visible], len(self.queries)
        points = self.points[self.visible] * scale
        seen = np.maximum(self.count_visible(), 1)
        variances = np.zeros((count, 2))
        for axis in range(2):
            means = np.bincount(ids, points[:, axis], count) / seen
            squares = (points[:, axis] - means[ids]) ** 2
            variances[:, axis] = np.bincount(ids, squares, count) / seen
        return variances

    def fill_rectangle(self, first: int, end: int) -> Tracks:
        """Return the tracks of all points in the frames from ``first`` to ``end``, exclusive.

        Where a point does not live it is invisible, and its position is NaN.
        """
        rows = self._find_rows(first, end)
        places = self.ids[rows], self.frames[rows] - first
        shape = (len(self.queries), end - first)

        def fill(values: NDArray[Any], empty: float) -> NDArray[Any]:
            filled = np.full((*shape, *values.shape[1:]), empty, values.dtype)
            filled[places] = values[rows]
            return filled

        return Tracks(
            queries=self.queries,
            points=fill(self.points, np.nan),
            visible=fill(self.visible, False),
            confidence=fill(self.confidence, 0),
            forward_backward_error=fill(self.forward_backward_error, np.inf),
        )

    def _find_rows(self, first: int, end: int) -> slice:
        begin, stop = np.searchsorted(self.frames, [first, end]).tolist()
        return slice(begin, stop)

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {name: values for name, values in vars(self).items() if name != "queries"}


def collect_ragged(frames: Iterable[LivingPoints]) -> RaggedTracks:
    """Return the tracks of a clip from the points of all of its frames."""
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in LivingPoints._fields}
    queries, known = [], 0
    for living in frames:
        columns["frame"].append(np.full(len(living.ids), living.frame, np.int32))
        for name in LivingPoints._fields[1:]:
            columns[name].append(getattr(living, name))
        new = living.ids >= known
        known += int(new.sum())
        queries.append(np.pad(living.points[new], ((0, 0), (1, 0)), constant_values=living.frame))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    frame = joined.pop("frame")
    return RaggedTracks(queries=np.concatenate(queries), frames=frame, **joined)


def list_rows(tracks: Tracks, first: int, end: int, missing: int = 0) -> RaggedTracks:
    """Return the rows of all points in the frames from ``first`` to ``end``, exclusive.

    Args:
        tracks: N tracks.
        first: Number of the first frame.
        end: Number of the frame after the last.
        missing: Number of empty points after the N: invisible, with NaN as their positions.

    """
    count, length = len(tracks.queries) + missing, end - first

    def list_values(values: NDArray[Any], empty: float) -> NDArray[Any]:
        return list_row_values(values[:, first:end], missing, empty)

    return RaggedTracks(
        queries=tracks.queries,
        frames=np.repeat(np.arange(first, end, dtype=np.int32), count),
        ids=np.tile(np.arange(count, dtype=np.int32), length),
        points=list_values(tracks.points, np.nan),
        visible=list_values(tracks.visible, False),
        confidence=list_values(tracks.confidence, 0),
        forward_backward_error=list_values(tracks.forward_backward_error, np.inf),
    )


def list_row_values(values: NDArray[Any], missing: int, empty: float) -> NDArray[Any]:
    """Return values [N, T, ...] of points in frames by rows [T * (N + missing), ...].

    Args:
        values: Of N points in T frames.
        missing: Number of empty points after the N.
        empty: Value of these.

    """
    around = ((0, missing), *((0, 0),) * (values.ndim - 1))
    padded = np.pad(values, around, constant_values=empty)
    return np.ascontiguousarray(padded.swapaxes(0, 1)).reshape(-1, *values.shape[2:])
