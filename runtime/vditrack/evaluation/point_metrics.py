"""TAP-Vid's metrics, and what stands behind them (arXiv 2211.03726, section 3)."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vditrack.evaluation.results import Curve

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Counts = NDArray[np.float64]

THRESHOLDS = (1, 2, 4, 8, 16)
"""Distances in pixels of the 256 x 256 raster."""
RECOVERED_WITHIN = 8
"""Distance at which a point that reappeared counts as found again, same pixels."""


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

    def recovery(self, query_frames: NDArray[np.intp], edges: tuple[float, ...]) -> Curve:
        """Points that were hidden after their query and are seen again: how many are found.

        Found is predicted visible and within `RECOVERED_WITHIN`; by frames since they reappeared.
        """
        since = frames_since_reappearing(self.true_visible, query_frames)
        truth = self.true_visible & self.counted & np.isfinite(since)
        found = (self.visible & self.near(RECOVERED_WITHIN))[truth]
        bins = np.digitize(since[truth], edges) - 1
        totals = np.bincount(bins, minlength=len(edges))
        hits = np.bincount(bins, found, minlength=len(edges))
        return Curve(_ranges(edges), hits.astype(np.float64), totals.astype(np.float64))


def frames_since_reappearing(visible: Bools, query_frames: NDArray[np.intp]) -> Counts:
    """[Q, T] frames since the last true reappearance after the query; NaN before the first one.

    0 in the frame of the reappearance itself.
    """
    since = np.full(visible.shape, np.nan)
    frames = np.arange(visible.shape[1])
    for track, seen, start in zip(since, visible, query_frames, strict=True):
        returns = np.flatnonzero(seen[1:] & ~seen[:-1] & (frames[1:] > start)) + 1
        for first in returns:
            track[first:] = frames[: len(track) - first]
    return since


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
