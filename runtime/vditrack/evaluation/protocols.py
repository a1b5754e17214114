"""Evaluation protocols: which queries a method gets on a clip, and how its results are scored."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import InputError
from vditrack.evaluation.baselines.point_baselines import MaskPropagator, Method, PointTracker
from vditrack.evaluation.metrics.identity_switches import score_mask_identities
from vditrack.evaluation.metrics.keypoints import keypoint_scores
from vditrack.evaluation.metrics.masks import mask_scores
from vditrack.evaluation.metrics.points import (
    RECOVERED_WITHIN,
    THRESHOLDS,
    Comparison,
    find_outside,
    measure_motion,
    score_point_identities,
)
from vditrack.evaluation.metrics.redetection import average_redetection_jaccard
from vditrack.evaluation.metrics.results import VISIBLE_OUTSIDE, Curve, Result, Share
from vditrack.evaluation.report.pictures import mask_picture, point_picture
from vditrack.points.tracks import Tracks
from vditrack.synthetic.annotated_clip import AnnotatedClip

RASTER = 256
"""Side of the raster in whose pixels TAP-Vid measures distances."""
STRIDED_STEP = 5
"""Frames between the queries of TAP-Vid's strided category."""
HEFT_CHUNK = 25
"""HeFT's reference evaluates a multiple of this many frames."""

# Edges of the bins of curves: pixels a frame on the raster, frames, and confidences. Most
# confidences are high, so bins are narrower there.
_MOTION = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_SINCE_QUERY = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 192.0)
_SINCE_REAPPEARING = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
_CONFIDENCE = (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
_PARTS = 10
"""Parts of a clip in the curve of J&F."""


class EvaluationProtocol(Protocol):
    """An evaluation of a method on a clip."""

    @property
    def name(self) -> str:
        """Name on the command line."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the headline metric first."""

    @property
    def side(self) -> int | None:
        """Side of the squares that frames are resized to, in pixels; None if they are not."""

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """Run a method on a clip and score it.

        Args:
            clip: The clip with its annotations.
            name: Name of the method in the result.
            method: The method.

        Raises:
            InputError: The method does not support the protocol, or the clip lacks annotations.

        """


@dataclass(frozen=True)
class PointQueries:
    """Q queries of a clip, and the frames in which each is evaluated."""

    tracks: NDArray[np.intp]
    """Index of the true track, intp [Q]."""
    frames: NDArray[np.intp]
    """Frame of the query, intp [Q]."""
    counted: NDArray[np.bool_]
    """Frames in which the query is evaluated, bool [Q, T]."""


def first_queries(visible: NDArray[np.bool_]) -> PointQueries:
    """Return a query for each track in its first visible frame, evaluated in the frames after.

    A track that is never visible gets no query.

    Args:
        visible: True visibility, bool [N, T].

    """
    tracks = np.flatnonzero(visible.any(axis=1))
    frames = visible[tracks].argmax(axis=1)
    return PointQueries(tracks, frames, np.arange(visible.shape[1]) > frames[:, None])


def strided_queries(visible: NDArray[np.bool_]) -> PointQueries:
    """Return queries for each visible track [N, T] every fifth frame, evaluated in all others."""
    strided = np.zeros_like(visible)
    strided[:, ::STRIDED_STEP] = visible[:, ::STRIDED_STEP]
    tracks, frames = np.nonzero(strided)
    return PointQueries(tracks, frames, np.arange(visible.shape[1]) != frames[:, None])


def start_queries(visible: NDArray[np.bool_]) -> PointQueries:
    """Return a query for each track [N, T] visible in frame 0, evaluated in every frame (HeFT)."""
    tracks = np.flatnonzero(visible[:, :1].any(axis=1))
    counted = np.ones((len(tracks), visible.shape[1]), np.bool_)
    return PointQueries(tracks, np.zeros_like(tracks), counted)


@dataclass(frozen=True)
class TapVid:
    """TAP-Vid's official protocol (arXiv 2211.03726)."""

    query: Literal["first", "strided"] = "first"
    size: Literal["256", "full"] = "256"
    name: str = "tapvid"

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `EvaluationProtocol`. AJ_RD is defined for one query a track."""
        return ("AJ", "δ", "OA", "AJ_RD") if self.query == "first" else ("AJ", "δ", "OA")

    @property
    def side(self) -> int | None:
        """See `EvaluationProtocol`."""
        return RASTER if self.size == "256" else None

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        outside = find_outside(clip)
        if self.side is not None:
            clip = clip.resize(self.side, self.side)
        queries = (first_queries if self.query == "first" else strided_queries)(clip.visible)
        return _score_points(self.metrics, clip, queries, outside, name, method, RASTER / clip.size)


@dataclass(frozen=True)
class Heft:
    """The evaluation of HeFT's reference code, for comparison with its figures.

    It differs from TAP-Vid: queries are in frame 0 alone and frame 0 is evaluated, frames beyond a
    multiple of 25 are dropped, frames have full resolution, and predicted positions are divided by
    W - 1 where true ones are divided by W, both times 255.
    """

    name: str = "heft"
    metrics: tuple[str, ...] = ("AJ", "δ", "OA", "AJ_RD")
    side: int | None = None

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        length = len(clip.frames) - len(clip.frames) % HEFT_CHUNK
        if not length:
            raise InputError(
                f"clip {clip.name} has {len(clip.frames)} frames; the protocol heft needs at least "
                f"{HEFT_CHUNK}. Use --protocol tapvid."
            )
        clip = replace(
            clip,
            frames=clip.frames[:length],
            points=clip.points[:, :length],
            visible=clip.visible[:, :length],
            masks=None if clip.masks is None else clip.masks[:length],
        )
        queries = start_queries(clip.visible)
        true_scale = (RASTER - 1) / clip.size
        scale = (RASTER - 1) / (clip.size - 1)
        outside = find_outside(clip)
        return _score_points(self.metrics, clip, queries, outside, name, method, true_scale, scale)


@dataclass(frozen=True)
class Davis:
    """DAVIS-2017: region and boundary of masks propagated from the first frame."""

    name: str = "davis"
    metrics: tuple[str, ...] = ("J&F", "J", "F")
    side: int | None = None

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        if not isinstance(method, MaskPropagator):
            raise InputError(f"{name} propagates no masks, which davis needs. Leave it out.")
        if clip.masks is None:
            raise InputError(f"clip {clip.name} has no masks. Use --protocol tapvid.")
        began = time.perf_counter()
        masks = method.propagate(clip.frames, clip.masks[0])
        seconds = time.perf_counter() - began
        scores = mask_scores(clip.masks, masks)
        values = ((scores.region + scores.boundary) / 2, scores.region, scores.boundary)
        identities = score_mask_identities(clip, masks)
        return Result(
            clip=clip.name,
            method=name,
            metrics=dict(zip(self.metrics, values, strict=True)),
            events={"identities kept": identities} if identities.total else {},
            curves={"J&F by part of the clip": _curve_by_part(scores.per_frame)},
            frames=len(clip.frames),
            seconds=seconds,
            picture=mask_picture(clip.frames, clip.masks, masks),
        )


@dataclass(frozen=True)
class Badja:
    """BADJA: animal joints tracked from the first annotated frame, at full resolution."""

    name: str = "badja"
    metrics: tuple[str, ...] = ("PCK 0.2", "PCK 3 px")
    side: int | None = None

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        if clip.masks is None:
            raise InputError(
                f"clip {clip.name} has no masks, whose area badja needs. Use --protocol tapvid."
            )
        queries = start_queries(clip.visible)
        tracks, seconds = _track(clip, queries, name, method)
        truth, visible = clip.points[queries.tracks], clip.visible[queries.tracks]
        scores = keypoint_scores(truth, visible, clip.masks, tracks.points)
        return Result(
            clip=clip.name,
            method=name,
            metrics=dict(zip(self.metrics, (scores.by_area, scores.within_3), strict=True)),
            events={},
            curves={},
            frames=len(clip.frames),
            seconds=seconds,
            picture=point_picture(clip.frames, truth, visible, tracks),
        )


def _score_points(
    metrics: Sequence[str],
    clip: AnnotatedClip,
    queries: PointQueries,
    outside: NDArray[np.bool_],
    name: str,
    method: Method,
    true_scale: NDArray[np.floating[Any]],
    scale: NDArray[np.floating[Any]] | None = None,
) -> Result:
    """Run a method and score it on the raster.

    ``outside`` [N, T] tells which points are far outside the frame, as in `find_outside`. True
    positions are multiplied by ``true_scale``, and predicted ones by ``scale`` or the same.
    """
    tracks, seconds = _track(clip, queries, name, method)
    truth, visible = clip.points[queries.tracks], clip.visible[queries.tracks]
    on_raster = truth * true_scale
    difference = tracks.points * (true_scale if scale is None else scale) - on_raster
    compared = Comparison((difference**2).sum(axis=2), visible, tracks.visible, queries.counted)
    scores = compared.scores()
    again = average_redetection_jaccard(compared.squared_distance, visible, tracks.visible)
    values = {
        "AJ": scores.average_jaccard,
        "δ": scores.position_accuracy,
        "OA": scores.occlusion_accuracy,
        "AJ_RD": again,
    }
    return Result(
        clip=clip.name,
        method=name,
        metrics={metric: values[metric] for metric in metrics},
        events=_count_events(clip, compared, queries, outside[queries.tracks], tracks),
        curves=_point_curves(compared, on_raster, queries, tracks),
        frames=len(clip.frames),
        seconds=seconds,
        picture=point_picture(clip.frames, truth, visible, tracks),
    )


def _count_events(
    clip: AnnotatedClip,
    compared: Comparison,
    queries: PointQueries,
    outside: NDArray[np.bool_],
    tracks: Tracks,
) -> dict[str, Share]:
    shares = {
        "found again": compared.found_again(queries.frames),
        "identity kept": score_point_identities(clip, queries.tracks, queries.frames, tracks),
        VISIBLE_OUTSIDE: compared.visible_outside(outside),
    }
    return {name: share for name, share in shares.items() if share.total}


def _point_curves(
    compared: Comparison, on_raster: NDArray[np.float32], queries: PointQueries, tracks: Tracks
) -> dict[str, Curve]:
    motion = measure_motion(on_raster, compared.true_visible)
    since = np.abs(np.arange(motion.shape[1]) - queries.frames[:, None]).astype(np.float64)
    return {
        "δ within k px": compared.within(),
        "Jaccard within k px": compared.jaccard(),
        "δ by motion, px a frame": compared.accuracy_by(motion, _MOTION),
        **_time_curves(compared, since),
        "Found again, by frames since it reappeared": compared.recovery(
            queries.frames, _SINCE_REAPPEARING
        ),
        f"Visible and within {RECOVERED_WITHIN} px, by confidence from k": compared.reliability(
            tracks.confidence, _CONFIDENCE
        ),
    }


def _time_curves(compared: Comparison, since: NDArray[np.float64]) -> dict[str, Curve]:
    """Return how accuracy and visibility last, given the frames [Q, T] from each query."""
    return {
        "δ by frames from the query": compared.accuracy_by(since, _SINCE_QUERY),
        **{
            f"Within {k} px, by frames from the query": compared.accuracy_by(
                since, _SINCE_QUERY, (k,)
            )
            for k in THRESHOLDS
        },
        "OA by frames from the query": compared.visibility_by(since, _SINCE_QUERY),
    }


def _track(
    clip: AnnotatedClip, queries: PointQueries, name: str, method: Method
) -> tuple[Tracks, float]:
    """Return the tracks of the queries, and the time that they took in seconds."""
    if not isinstance(method, PointTracker):
        raise InputError(f"{name} tracks no points, which the protocol needs. Leave it out.")
    at = clip.points[queries.tracks, queries.frames]
    # Annotations may lie on the right or lower border, which is outside the last pixel.
    at = np.clip(at, 0, np.nextafter(clip.size, np.float32(0)))
    points = np.column_stack([queries.frames, at]).astype(np.float32)
    began = time.perf_counter()
    tracks = method.track(clip.frames, points)
    return tracks, time.perf_counter() - began


def _curve_by_part(per_frame: NDArray[np.float64]) -> Curve:
    """Return the mean J&F of each of ten equal parts of a clip, given J&F [T] a frame."""
    known = np.isfinite(per_frame)
    part = np.arange(len(per_frame)) * _PARTS // max(len(per_frame), 1)
    totals = np.bincount(part[known], minlength=_PARTS)
    hits = np.bincount(part[known], per_frame[known] / 100, minlength=_PARTS)
    bins = tuple(f"{10 * n}-{10 * n + 10}%" for n in range(_PARTS))
    return Curve(bins, np.asarray(hits, np.float64), totals.astype(np.float64))
