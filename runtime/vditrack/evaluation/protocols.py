"""The protocols: what is asked of a method on a clip, and how its answer is scored."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.errors import InputError
from vditrack.evaluation.baselines.point_baselines import MaskPropagator, Method, PointTracker
from vditrack.evaluation.metrics.identity_switches import score_mask_identities
from vditrack.evaluation.metrics.keypoints import keypoint_scores
from vditrack.evaluation.metrics.masks import mask_scores
from vditrack.evaluation.metrics.points import Comparison, score_point_identities, true_motion
from vditrack.evaluation.metrics.results import Curve, Result, Share
from vditrack.evaluation.report.pictures import mask_picture, point_picture
from vditrack.points.tracks import Tracks

RASTER = 256
"""TAP-Vid measures in pixels of a raster of this many rows and columns."""
STRIDED_STEP = 5
HEFT_CHUNK = 25

_MOTION = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_SINCE_QUERY = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_SINCE_REAPPEARING = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
_PARTS = 10


class EvaluationProtocol(Protocol):
    """One way to put a method to the test on a clip."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every clip has, the headline first."""

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """Let the method called ``name`` work on the clip, and score it.

        Raises:
            InputError: the method cannot do what the protocol asks, or the clip lacks the truth.

        """


@dataclass(frozen=True)
class PointQueries:
    """Query points of a clip and the frames in which each is evaluated."""

    tracks: NDArray[np.intp]
    """[Q] index of the true track."""
    frames: NDArray[np.intp]
    """[Q] frame of the query."""
    counted: NDArray[np.bool_]
    """[Q, T]"""


def first_queries(visible: NDArray[np.bool_]) -> PointQueries:
    """Ask for each track where it is first visible [N, T]; the frames after that count.

    A track that is never visible is not asked for.
    """
    tracks = np.flatnonzero(visible.any(axis=1))
    frames = visible[tracks].argmax(axis=1)
    return PointQueries(tracks, frames, np.arange(visible.shape[1]) > frames[:, None])


def strided_queries(visible: NDArray[np.bool_]) -> PointQueries:
    """Ask in every fifth frame for each track visible there; all other frames count."""
    asked = np.zeros_like(visible)
    asked[:, ::STRIDED_STEP] = visible[:, ::STRIDED_STEP]
    tracks, frames = np.nonzero(asked)
    return PointQueries(tracks, frames, np.arange(visible.shape[1]) != frames[:, None])


def start_queries(visible: NDArray[np.bool_]) -> PointQueries:
    """Ask for each track visible in frame 0; every frame counts, the query's too (HeFT)."""
    tracks = np.flatnonzero(visible[:, :1].any(axis=1))
    counted = np.ones((len(tracks), visible.shape[1]), np.bool_)
    return PointQueries(tracks, np.zeros_like(tracks), counted)


@dataclass(frozen=True)
class TapVid:
    """TAP-Vid's official protocol (arXiv 2211.03726)."""

    query: Literal["first", "strided"] = "first"
    size: Literal["256", "full"] = "256"
    name: str = "tapvid"
    metrics: tuple[str, ...] = ("AJ", "δ", "OA")

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        if self.size == "256":
            clip = clip.resized(RASTER, RASTER)
        asked = (first_queries if self.query == "first" else strided_queries)(clip.visible)
        return _point_result(self.metrics, clip, asked, name, method, RASTER / clip.size)


@dataclass(frozen=True)
class Heft:
    """The evaluation of HeFT's reference, to compare with its figures; not official TAP-Vid.

    Queries in frame 0 only, their frame counted, frames beyond a multiple of 25 dropped, at full
    resolution, positions divided by W - 1 and true fractions not, both times 255.
    """

    name: str = "heft"
    metrics: tuple[str, ...] = ("AJ", "δ", "OA")

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        length = len(clip.frames) - len(clip.frames) % HEFT_CHUNK
        if not length:
            raise InputError(
                f"clip {clip.name} has {len(clip.frames)} frames; the protocol heft drops what is "
                f"left of a multiple of {HEFT_CHUNK}, and so all of it. Use --protocol tapvid."
            )
        clip = replace(
            clip,
            frames=clip.frames[:length],
            points=clip.points[:, :length],
            visible=clip.visible[:, :length],
            masks=None if clip.masks is None else clip.masks[:length],
        )
        asked = start_queries(clip.visible)
        true_scale = (RASTER - 1) / clip.size
        scale = (RASTER - 1) / (clip.size - 1)
        return _point_result(self.metrics, clip, asked, name, method, true_scale, scale)


@dataclass(frozen=True)
class Davis:
    """Propagation of the first frame's masks, by region and boundary (DAVIS-2017)."""

    name: str = "davis"
    metrics: tuple[str, ...] = ("J&F", "J", "F")

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        if not isinstance(method, MaskPropagator):
            raise InputError(f"{name} propagates no masks, as davis asks. Leave it out.")
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
            curves={"J&F by part of the clip": _by_part(scores.per_frame)},
            frames=len(clip.frames),
            seconds=seconds,
            picture=mask_picture(clip.frames, clip.masks, masks),
        )


@dataclass(frozen=True)
class Badja:
    """Joints of animals followed from the first annotated frame (BADJA), at full resolution."""

    name: str = "badja"
    metrics: tuple[str, ...] = ("PCK 0.2", "PCK 3 px")

    def run(self, clip: AnnotatedClip, name: str, method: Method) -> Result:
        """See `EvaluationProtocol`."""
        if clip.masks is None:
            raise InputError(f"clip {clip.name} has no masks, whose area the protocol needs.")
        asked = start_queries(clip.visible)
        tracks, seconds = _track(clip, asked, name, method)
        truth, visible = clip.points[asked.tracks], clip.visible[asked.tracks]
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


def _point_result(
    metrics: Sequence[str],
    clip: AnnotatedClip,
    asked: PointQueries,
    name: str,
    method: Method,
    true_scale: NDArray[np.floating[Any]],
    scale: NDArray[np.floating[Any]] | None = None,
) -> Result:
    """Track and compare on the raster: true positions times one scale, found ones times another."""
    tracks, seconds = _track(clip, asked, name, method)
    truth, visible = clip.points[asked.tracks], clip.visible[asked.tracks]
    on_raster = truth * true_scale
    difference = tracks.points * (true_scale if scale is None else scale) - on_raster
    compared = Comparison((difference**2).sum(axis=2), visible, tracks.visible, asked.counted)
    scores = compared.scores()
    values = (scores.average_jaccard, scores.position_accuracy, scores.occlusion_accuracy)
    return Result(
        clip=clip.name,
        method=name,
        metrics=dict(zip(metrics, values, strict=True)),
        events=_events(clip, compared, asked, tracks),
        curves=_point_curves(compared, on_raster, asked),
        frames=len(clip.frames),
        seconds=seconds,
        picture=point_picture(clip.frames, truth, visible, tracks),
    )


def _events(
    clip: AnnotatedClip, compared: Comparison, asked: PointQueries, tracks: Tracks
) -> dict[str, Share]:
    shares = {
        "found again": compared.found_again(asked.frames),
        "identity kept": score_point_identities(clip, asked.tracks, asked.frames, tracks),
    }
    return {name: share for name, share in shares.items() if share.total}


def _point_curves(
    compared: Comparison, on_raster: NDArray[np.float32], asked: PointQueries
) -> dict[str, Curve]:
    motion = true_motion(on_raster, compared.true_visible)
    since = np.abs(np.arange(motion.shape[1]) - asked.frames[:, None]).astype(np.float64)
    return {
        "δ within k px": compared.within(),
        "Jaccard within k px": compared.jaccard(),
        "δ by motion, px a frame": compared.accuracy_by(motion, _MOTION),
        "δ by frames from the query": compared.accuracy_by(since, _SINCE_QUERY),
        "Found again, by frames since it reappeared": compared.recovery(
            asked.frames, _SINCE_REAPPEARING
        ),
    }


def _track(
    clip: AnnotatedClip, asked: PointQueries, name: str, method: Method
) -> tuple[Tracks, float]:
    """Tracks of the queries, and the seconds they took."""
    if not isinstance(method, PointTracker):
        raise InputError(f"{name} tracks no points, as the protocol asks. Leave it out.")
    at = clip.points[asked.tracks, asked.frames]
    # Annotations may lie on the border itself, which is outside the last pixel.
    at = np.clip(at, 0, np.nextafter(clip.size, np.float32(0)))
    queries = np.column_stack([asked.frames, at]).astype(np.float32)
    began = time.perf_counter()
    tracks = method.track(clip.frames, queries)
    return tracks, time.perf_counter() - began


def _by_part(per_frame: NDArray[np.float64]) -> Curve:
    """Means of J&F [T] over ten equal parts of a clip."""
    known = np.isfinite(per_frame)
    part = np.arange(len(per_frame)) * _PARTS // max(len(per_frame), 1)
    totals = np.bincount(part[known], minlength=_PARTS)
    hits = np.bincount(part[known], per_frame[known] / 100, minlength=_PARTS)
    bins = tuple(f"{10 * n}-{10 * n + 10}%" for n in range(_PARTS))
    return Curve(bins, np.asarray(hits, np.float64), totals.astype(np.float64))
