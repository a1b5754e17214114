"""Metrics of TAP-Vid (arXiv 2211.03726, section 3), and rates of re-detection and identity."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vditrack.arrays import Bools, Doubles, Floats, Indices, MaskClip
from vditrack.evaluation.metrics.identity_switches import find_contacts
from vditrack.evaluation.metrics.results import Curve, Share
from vditrack.points.tracks import Tracks
from vditrack.synthetic.annotated_clip import AnnotatedClip

THRESHOLDS = (1, 2, 4, 8, 16)
"""Thresholds of TAP-Vid on the distance, in pixels of the 256 x 256 raster."""
RECOVERED_WITHIN = 8
"""Largest distance at which a point that reappeared counts as found again, in the same pixels.

A confidence counts as right up to the same distance.
"""
OUTSIDE_BY = 10
"""Distance outside the frame, in pixels of the clip, beyond which a point counts as far outside."""
HIDDEN_FOR = 5
"""Smallest number of successive hidden frames before a reappearance."""
FOUND_AFTER = 5
"""Number of frames after its reappearance at which a point is judged."""


@dataclass(frozen=True)
class PointScores:
    """Scores of one video in percent; NaN if the video does not define one."""

    average_jaccard: float
    """AJ: mean over thresholds of true positives / (truly visible + false positives)."""
    position_accuracy: float
    """δ: mean over thresholds of the share of truly visible points within the threshold."""
    occlusion_accuracy: float
    """OA: share of frames in which the visibility is predicted correctly."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of predicted tracks with the true ones, for Q queries and T frames."""

    squared_distance: Floats
    """Squared distances from the true positions, float32 [Q, T], in squared pixels of the 256 x 256
    raster."""
    true_visible: Bools
    """True visibility, bool [Q, T]."""
    visible: Bools
    """Predicted visibility, bool [Q, T]."""
    counted: Bools
    """Frames in which the protocol evaluates each track, bool [Q, T]."""

    def scores(self) -> PointScores:
        """Return the official metrics. A distance equal to a threshold is not within it."""
        truth = self.true_visible & self.counted
        agreeing = (self.visible == self.true_visible)[self.counted]
        return PointScores(
            100 * _mean(self.jaccard().hits / _or_nan(self.jaccard().totals)),
            100 * _mean(self.within().hits / _or_nan(truth.sum())),
            100 * (float(agreeing.mean()) if agreeing.size else np.nan),
        )

    def within(self) -> Curve:
        """Return the position accuracy by threshold, regardless of predicted visibility."""
        truth = self.true_visible & self.counted
        hits = np.array([(self.near(k) & truth).sum() for k in THRESHOLDS], np.float64)
        return Curve(_labels(THRESHOLDS), hits, np.full(len(hits), truth.sum(), np.float64))

    def jaccard(self) -> Curve:
        """Return the Jaccard index by threshold."""
        truth = self.true_visible & self.counted
        predicted = self.visible & self.counted
        hits, totals = [], []
        for k in THRESHOLDS:
            correct = self.near(k) & self.true_visible
            hits.append((correct & predicted).sum())
            totals.append(truth.sum() + (predicted & ~correct).sum())
        return Curve(_labels(THRESHOLDS), np.array(hits, float), np.array(totals, float))

    def near(self, threshold: float) -> Bools:
        """Return which positions are strictly within a distance in raster pixels, bool [Q, T]."""
        return np.asarray(self.squared_distance < threshold**2, np.bool_)

    def accuracy_by(
        self, value: Doubles, edges: tuple[float, ...], thresholds: tuple[int, ...] = THRESHOLDS
    ) -> Curve:
        """Return the position accuracy by bins of another quantity, regardless of visibility.

        Args:
            value: The quantity, float64 [Q, T]; NaN leaves a position out.
            edges: Edges of the bins. A bin contains its lower edge, and the last one is open.
            thresholds: Distances in raster pixels over whose shares the mean is taken.

        """
        truth = self.true_visible & self.counted
        share = np.mean([self.near(k) for k in thresholds], axis=0)
        return _bin_shares(share, truth, value, edges)

    def visibility_by(self, value: Doubles, edges: tuple[float, ...]) -> Curve:
        """Return the share of frames whose visibility is right, by bins of another quantity.

        It is the occlusion accuracy of each bin. Arguments as in `accuracy_by`.
        """
        agreeing = (self.visible == self.true_visible).astype(np.float64)
        return _bin_shares(agreeing, self.counted, value, edges)

    def found_again(self, query_frames: Indices) -> Share:
        """Return how many of the points that reappeared are found again; see `reappearances`.

        Each reappearance is judged once: `FOUND_AFTER` frames after it, or in the last frame before
        the point is hidden again or the clip ends, if that is sooner. A point is found if it is
        predicted visible and is within `RECOVERED_WITHIN`.

        Args:
            query_frames: Frame of each query, intp [Q].

        """
        back = reappearances(self.true_visible, query_frames)
        judged = np.minimum(back.first + FOUND_AFTER, back.last)
        return Share(int(self._found()[back.track, judged].sum()), len(judged))

    def recovery(self, query_frames: Indices, edges: tuple[float, ...]) -> Curve:
        """Return the share of reappeared points that are found, by the number of frames since."""
        since = frames_since_reappearing(self.true_visible, query_frames)
        found = self._found().astype(np.float64)
        return _bin_shares(found, self.true_visible & self.counted, since, edges)

    def visible_outside(self, outside: Bools) -> Share:
        """Return how many of the positions far outside the frame are predicted visible.

        Args:
            outside: Positions far outside the frame, bool [Q, T]; see `find_outside`.

        """
        judged = outside & self.counted
        return Share(int((self.visible & judged).sum()), int(judged.sum()))

    def reliability(self, confidence: Floats, edges: tuple[float, ...]) -> Curve:
        """Return the share of frames in which a point is visible and found, by its confidence.

        A point counts if it is truly visible and within `RECOVERED_WITHIN` of its true position,
        whether or not it is predicted visible. The ideal share is the middle of each bin.

        Args:
            confidence: Confidences, float32 [Q, T], 0 to 1.
            edges: Lower edges of the bins, from 0, which are their labels. A bin contains its lower
                edge; the last one ends at 1.

        """
        right = (self.true_visible & self.near(RECOVERED_WITHIN))[self.counted]
        bins = np.digitize(confidence[self.counted], edges) - 1
        totals = np.bincount(bins, minlength=len(edges))
        hits = np.bincount(bins, right, minlength=len(edges))
        ideal = tuple(50 * (low + high) for low, high in pairwise((*edges, 1.0)))
        labels = tuple(f"{low:g}" for low in edges)
        return Curve(labels, hits.astype(np.float64), totals.astype(np.float64), ideal)

    def _found(self) -> Bools:
        """Return which points are predicted visible and near their true position, bool [Q, T]."""
        return self.visible & self.near(RECOVERED_WITHIN)


@dataclass(frozen=True)
class Reappearances:
    """E reappearances of points, and how long the points stay visible."""

    track: Indices
    """Index of the track, intp [E]."""
    first: Indices
    """First visible frame, intp [E]."""
    last: Indices
    """Last visible frame before the point is hidden again or the clip ends, intp [E]."""


def reappearances(visible: Bools, query_frames: Indices) -> Reappearances:
    """Return the reappearances of points that were hidden for `HIDDEN_FOR` frames or more.

    Args:
        visible: True visibility, bool [Q, T].
        query_frames: Frame of each query, intp [Q], in which the point is visible. Reappearances
            before it are left out.

    """
    edges = np.diff(visible.astype(np.int8), axis=1, prepend=0, append=0)
    track, first = np.nonzero(edges == 1)
    after = np.nonzero(edges == -1)[1]
    hidden = np.zeros_like(first)
    hidden[1:] = np.where(track[1:] == track[:-1], first[1:] - after[:-1], 0)
    kept = (hidden >= HIDDEN_FOR) & (first > query_frames[track])
    return Reappearances(track[kept], first[kept], after[kept] - 1)


def frames_since_reappearing(visible: Bools, query_frames: Indices) -> Doubles:
    """Return the number of frames since the last reappearance, float64 [Q, T].

    It is 0 in the frame of the reappearance, and NaN before the first one; see `reappearances`.
    """
    since = np.full(visible.shape, np.nan)
    back = reappearances(visible, query_frames)
    for track, first in zip(back.track, back.first, strict=True):
        since[track, first:] = np.arange(visible.shape[1] - first)
    return since


def score_point_identities(
    clip: AnnotatedClip, indices: Indices, query_frames: Indices, tracks: Tracks
) -> Share:
    """Return how many points on objects that look the same are still on their object afterwards.

    A crossing is a contact of two objects (`find_contacts`). Each point is judged once, after the
    first crossing of its object since the query: in the last frame in which the point is truly
    visible before the next contact of its object or the end of the clip. If it is not visible in
    between, it is judged after the next crossing. It keeps its identity if it is predicted visible
    there, at a pixel of its own object's mask.

    Later crossings are not judged: in clips whose objects return to their start, tracks without any
    motion would be right at the end.

    Args:
        clip: A clip with ``masks``, ``objects`` and ``alike``; without them there is no event.
        indices: Index of each query's point in the clip, intp [Q].
        query_frames: Frame of each query, intp [Q].
        tracks: Predicted tracks, in pixels of the clip's frames.

    """
    if clip.masks is None or clip.objects is None or not clip.alike:
        return Share(0, 0)
    own = clip.objects[indices]
    masks = np.asarray(clip.masks)
    touches = find_contacts(masks, clip.alike)[own]
    since_query = np.arange(len(clip.frames)) > query_frames[:, None]
    crossed = _accumulate(touches & since_query)
    apart = crossed & ~touches & clip.visible[indices]
    first_time = apart & ~_accumulate(touches & _accumulate(apart))
    judged = np.flatnonzero(first_time.any(axis=1))
    frame = first_time.shape[1] - 1 - first_time[judged, ::-1].argmax(axis=1)
    there = _object_at(masks, frame, tracks.points[judged, frame])
    kept = tracks.visible[judged, frame] & (there == own[judged])
    return Share(int(kept.sum()), len(judged))


def _accumulate(happening: Bools) -> Bools:
    """Return whether something happened in a frame or before, bool [Q, T]."""
    return np.logical_or.accumulate(happening, axis=1)


def _object_at(masks: MaskClip, frames: Indices, places: Floats) -> Indices:
    """Return the object index at points [E, 2] (x, y) of frames [E]; -1 outside the image."""
    inside = ((places >= 0) & (places < masks.shape[:0:-1])).all(axis=1)
    columns, rows = places[inside].astype(np.intp).T
    indices = np.full(len(places), -1)
    indices[inside] = masks[frames[inside], rows, columns]
    return indices


def find_outside(clip: AnnotatedClip) -> Bools:
    """Return which points are more than `OUTSIDE_BY` pixels outside the frame, bool [N, T].

    None is in a clip whose positions are undefined outside the frame.
    """
    if not clip.known_outside:
        return np.zeros_like(clip.visible)
    far = (clip.points < -OUTSIDE_BY) | (clip.points > clip.size + OUTSIDE_BY)
    return np.asarray(far.any(axis=2), np.bool_)


def measure_motion(points: Floats, visible: Bools) -> Doubles:
    """Return the motion since the frame before, float64 [Q, T]; NaN unless visible in both."""
    moved = np.full(visible.shape, np.nan)
    moved[:, 1:] = np.linalg.norm(np.diff(points, axis=1), axis=2)
    moved[:, 1:][~(visible[:, 1:] & visible[:, :-1])] = np.nan
    return moved


def _bin_shares(share: Doubles, cases: Bools, value: Doubles, edges: tuple[float, ...]) -> Curve:
    """Return the mean of shares by bins of a quantity.

    Args:
        share: Success of each case, from 0 to 1, float64 [Q, T].
        cases: Which of them are cases, bool [Q, T].
        value: The quantity, float64 [Q, T]; NaN leaves a case out.
        edges: Edges of the bins. A bin contains its lower edge, and the last one is open.

    """
    known = cases & np.isfinite(value)
    bins = np.digitize(value[known], edges) - 1
    kept = bins >= 0
    totals = np.bincount(bins[kept], minlength=len(edges))
    hits = np.bincount(bins[kept], share[known][kept], minlength=len(edges))
    return Curve(_ranges(edges), hits.astype(np.float64), totals.astype(np.float64))


def _or_nan(count: Doubles | int) -> Doubles:
    """Doubles to divide by: NaN in place of 0."""
    return np.where(np.asarray(count) > 0, count, np.nan)


def _mean(values: Doubles) -> float:
    return float(np.mean(values))


def _labels(values: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{value:g}" for value in values)


def _ranges(edges: tuple[float, ...]) -> tuple[str, ...]:
    """Return the labels of the bins between edges, of which the last is open."""
    closed = [f"{a:g}-{b:g}" for a, b in pairwise(edges)]
    return (*closed, f"{edges[-1]:g}+")
