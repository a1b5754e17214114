"""TAP-Vid's metrics (arXiv 2211.03726, section 3), and what happens to points behind them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.arrays import Bools, Floats, MaskClip
from vditrack.evaluation.metrics.identity_switches import find_contacts
from vditrack.evaluation.metrics.results import Curve, Share
from vditrack.points.tracks import Tracks

Counts = NDArray[np.float64]
Indices = NDArray[np.intp]

THRESHOLDS = (1, 2, 4, 8, 16)
"""Distances in pixels of the 256 x 256 raster."""
RECOVERED_WITHIN = 8
"""Distance at which a point that reappeared counts as found again, same pixels."""
HIDDEN_FOR = 5
"""Frames in a row that a point is hidden, at least, for its return to be a reappearance."""
FOUND_AFTER = 5
"""Frames after its reappearance in which a point should have been found again."""


@dataclass(frozen=True)
class PointScores:
    """Of one video, in percent; NaN where the video does not define it."""

    average_jaccard: float
    """Mean over thresholds of TP / (truly visible + FP)."""
    position_accuracy: float
    """Mean over thresholds of the share of truly visible points that are within it."""
    occlusion_accuracy: float
    """Share of frames in which visible or not was said rightly."""


@dataclass(frozen=True)
class Comparison:
    """Predicted tracks beside the true ones.

    Args:
        squared_distance: [Q, T] from the true position, in squared pixels of the 256 x 256 raster.
        true_visible: [Q, T].
        visible: [Q, T] predicted.
        counted: [Q, T] frames in which the protocol evaluates each track.

    """

    squared_distance: Floats
    true_visible: Bools
    visible: Bools
    counted: Bools

    def scores(self) -> PointScores:
        """Official metrics: a distance equal to the threshold is not within it."""
        truth = self.true_visible & self.counted
        agreeing = (self.visible == self.true_visible)[self.counted]
        return PointScores(
            100 * _mean(self.jaccard().hits / _or_nan(self.jaccard().totals)),
            100 * _mean(self.within().hits / _or_nan(truth.sum())),
            100 * (float(agreeing.mean()) if agreeing.size else np.nan),
        )

    def within(self) -> Curve:
        """Truly visible points by threshold, predicted visibility ignored."""
        truth = self.true_visible & self.counted
        hits = np.array([(self.near(k) & truth).sum() for k in THRESHOLDS], np.float64)
        return Curve(_labels(THRESHOLDS), hits, np.full(len(hits), truth.sum(), np.float64))

    def jaccard(self) -> Curve:
        """True positives, of true and false positives and false negatives, by threshold."""
        truth = self.true_visible & self.counted
        said = self.visible & self.counted
        hits, totals = [], []
        for k in THRESHOLDS:
            right = self.near(k) & self.true_visible
            hits.append((right & said).sum())
            totals.append(truth.sum() + (said & ~right).sum())
        return Curve(_labels(THRESHOLDS), np.array(hits, float), np.array(totals, float))

    def near(self, threshold: float) -> Bools:
        """[Q, T] strictly within a distance, in raster pixels."""
        return np.asarray(self.squared_distance < threshold**2, np.bool_)

    def accuracy_by(self, value: Counts, edges: tuple[float, ...]) -> Curve:
        """Position accuracy where ``value`` [Q, T] lies between neighbouring edges.

        A bin holds its lower edge; places where the value is NaN are left out, and the last bin is
        open.
        """
        truth = self.true_visible & self.counted & np.isfinite(value)
        share = np.mean([self.near(k) for k in THRESHOLDS], axis=0)[truth]
        bins = np.digitize(value[truth], edges) - 1
        kept = bins >= 0
        totals = np.bincount(bins[kept], minlength=len(edges))
        hits = np.bincount(bins[kept], share[kept], minlength=len(edges))
        return Curve(_ranges(edges), hits.astype(np.float64), totals.astype(np.float64))

    def found_again(self, query_frames: Indices) -> Share:
        """Points found again of those that reappeared; see `reappearances`.

        Each is judged once: `FOUND_AFTER` frames after it, or in the last frame before the point is
        hidden again or the clip ends, where that is sooner. Found is predicted visible and within
        `RECOVERED_WITHIN`.
        """
        back = reappearances(self.true_visible, query_frames)
        judged = np.minimum(back.first + FOUND_AFTER, back.last)
        return Share(int(self._found()[back.track, judged].sum()), len(judged))

    def recovery(self, query_frames: Indices, edges: tuple[float, ...]) -> Curve:
        """Points found of those that have reappeared, by frames since then; see `found_again`."""
        since = frames_since_reappearing(self.true_visible, query_frames)
        truth = self.true_visible & self.counted & np.isfinite(since)
        found = self._found()[truth]
        bins = np.digitize(since[truth], edges) - 1
        totals = np.bincount(bins, minlength=len(edges))
        hits = np.bincount(bins, found, minlength=len(edges))
        return Curve(_ranges(edges), hits.astype(np.float64), totals.astype(np.float64))

    def _found(self) -> Bools:
        """[Q, T] said to be visible, and near enough to its true position."""
        return self.visible & self.near(RECOVERED_WITHIN)


@dataclass(frozen=True)
class Reappearances:
    """Of E points that are seen again: which track, and the frames in which it stays visible."""

    track: Indices
    """[E]"""
    first: Indices
    """[E]"""
    last: Indices
    """[E] before the point is hidden again, or of the clip."""


def reappearances(visible: Bools, query_frames: Indices) -> Reappearances:
    """Returns of points [Q, T] that were truly hidden for `HIDDEN_FOR` frames or more.

    They were hidden after their query [Q], a frame in which they are visible.
    """
    edges = np.diff(visible.astype(np.int8), axis=1, prepend=0, append=0)
    track, first = np.nonzero(edges == 1)
    after = np.nonzero(edges == -1)[1]
    hidden = np.zeros_like(first)
    hidden[1:] = np.where(track[1:] == track[:-1], first[1:] - after[:-1], 0)
    kept = (hidden >= HIDDEN_FOR) & (first > query_frames[track])
    return Reappearances(track[kept], first[kept], after[kept] - 1)


def frames_since_reappearing(visible: Bools, query_frames: Indices) -> Counts:
    """[Q, T] frames since the last of the `reappearances`; NaN before the first one.

    0 in the frame of the reappearance itself.
    """
    since = np.full(visible.shape, np.nan)
    back = reappearances(visible, query_frames)
    for track, first in zip(back.track, back.first, strict=True):
        since[track, first:] = np.arange(visible.shape[1] - first)
    return since


def score_point_identities(
    clip: AnnotatedClip, asked: Indices, query_frames: Indices, tracks: Tracks
) -> Share:
    """Points on objects that look the same which are still on their own after a crossing.

    Objects cross while their masks touch, or while one that touched the other is wholly covered.
    Each point is judged once, when its object has crossed another for the first time since the
    query: in the last frame in which the point is truly visible before its object touches another
    again, or the clip ends. Where it is not visible in between, the next crossing's end decides.
    Its identity is kept if it is predicted visible there, at a pixel of its own object's mask.

    Later crossings do not count, since objects that go round end where no motion at all would have
    left the points.

    Args:
        clip: has ``masks``, ``objects`` and ``alike``; without them there is no such event.
        asked: [Q] the clip's point that each query asks for.
        query_frames: [Q]
        tracks: what was found, in pixels of the clip's frames.

    """
    if clip.masks is None or clip.objects is None or not clip.alike:
        return Share(0, 0)
    own = clip.objects[asked]
    touches = find_contacts(clip.masks, clip.alike)[own]
    since_query = np.arange(len(clip.frames)) > query_frames[:, None]
    crossed = _ever(touches & since_query)
    apart = crossed & ~touches & clip.visible[asked]
    first_time = apart & ~_ever(touches & _ever(apart))
    judged = np.flatnonzero(first_time.any(axis=1))
    frame = first_time.shape[1] - 1 - first_time[judged, ::-1].argmax(axis=1)
    there = _indices_at(clip.masks, frame, tracks.points[judged, frame])
    kept = tracks.visible[judged, frame] & (there == own[judged])
    return Share(int(kept.sum()), len(judged))


def _ever(happening: Bools) -> Bools:
    """[Q, T] whether it has happened by each frame."""
    return np.logical_or.accumulate(happening, axis=1)


def _indices_at(masks: MaskClip, frames: Indices, places: Floats) -> Indices:
    """[E] index of the object at places [E, 2] (x, y) of frames [E]; -1 outside the picture."""
    inside = ((places >= 0) & (places < masks.shape[:0:-1])).all(axis=1)
    columns, rows = places[inside].astype(np.intp).T
    indices = np.full(len(places), -1)
    indices[inside] = masks[frames[inside], rows, columns]
    return indices


def true_motion(points: Floats, visible: Bools) -> Counts:
    """[Q, T] distance from the frame before, where the point is visible in both; else NaN."""
    moved = np.full(visible.shape, np.nan)
    moved[:, 1:] = np.linalg.norm(np.diff(points, axis=1), axis=2)
    moved[:, 1:][~(visible[:, 1:] & visible[:, :-1])] = np.nan
    return moved


def _or_nan(count: Counts | int) -> Counts:
    """Counts to divide by: NaN in place of 0."""
    return np.where(np.asarray(count) > 0, count, np.nan)


def _mean(values: Counts) -> float:
    return float(np.mean(values))


def _labels(values: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{value:g}" for value in values)


def _ranges(edges: tuple[float, ...]) -> tuple[str, ...]:
    """Name the bins between edges, the last one open."""
    closed = [f"{a:g}-{b:g}" for a, b in pairwise(edges)]
    return (*closed, f"{edges[-1]:g}+")
