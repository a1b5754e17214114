"""Selection of the points for visual-inertial estimators such as VINS. Needs no ROS.

Such an estimator takes the observations of one id in consecutive messages as one point that was
seen without a gap. So a point that was invisible, or moved as no point of the scene does, gets
another id, and each observation has a velocity that was compared with the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vditrack.arrays import Bools, Floats, Ints
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.parameters.settings import Settings

_ID_COUNT = 1 << 24
"""Ids are float32 in the message, which is exact up to this number; then they start again."""
_MIN_MATCHES = 12
"""Points in two messages below which no motion of the camera can be told from outliers."""
_MIN_INLIERS = 0.5
"""Share of the points that must agree with the motion of the camera, or it is not believed."""
_CONFIDENCE = 0.999
"""Probability with which RANSAC finds a motion without outliers."""
_AFFINE_POINTS = 8
"""Points from which a motion of the image is fitted; with fewer, it is their median."""
_TRIMMED_SPREADS = 3.0
"""Median deviations beyond which a point does not count in the second fit."""


@dataclass(frozen=True)
class Features:
    """The points of one message."""

    ids: Ints
    """[M]; an id that is in consecutive messages was seen in all images between."""
    rays: Floats
    """[M, 2] on the plane z = 1."""
    pixels: Floats
    """[M, 2] (x, y) in the image."""
    velocities: Floats
    """[M, 2] of the rays per second, since the previous image."""


@dataclass(frozen=True)
class _Image:
    """The usable points of an image."""

    stamp: float
    ids: Ints
    """[N] of the tracker, ascending."""
    rays: Floats
    velocities: Floats
    """[N, 2] of the rays per second; NaN where the point was not usable in the image before, or
    jumped."""


class FeatureSelector:
    """Follows the points of a camera from image to image, and selects those of each message."""

    def __init__(self) -> None:
        """Start without points."""
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Forget all points; ids go on."""
        self._last: _Image | None = None
        self._feature_ids: dict[int, int] = {}
        """Ids in the last message by ids of the tracker, of points that were usable since."""
        self._observed: dict[int, Floats] = {}
        """Rays in the last message by ids of the tracker."""
        self._sent: float | None = None

    def select(
        self, update: LiveUpdate, rays: Floats, focal: float, settings: Settings
    ) -> Features | None:
        """Take the points of the next image; return those of its message, or None if it has none.

        Args:
            update: the points in the image.
            rays: their rays [N, 2] on the plane z = 1; NaN where there is none.
            focal: focal length in pixels, to which limits in pixels refer.
            settings: the node's.

        """
        last = self._last
        if last is not None and update.stamp <= last.stamp:
            self.reset()
            last = None
        usable = update.visible & (update.confidence >= settings.min_confidence)
        usable &= np.isfinite(rays).all(axis=1)
        image = _follow(last, update.stamp, update.ids[usable], rays[usable])
        jumped, compared = find_jumps(last, image, settings.features_max_jump / focal)
        image.velocities[jumped] = np.nan
        self._last = image
        steady = np.isfinite(image.velocities).all(axis=1)
        if settings.features_max_jump > 0:
            # The first velocity after a gap may be that of a correction.
            steady &= compared
        followed = set(image.ids[steady].tolist())
        self._feature_ids = {n: one for n, one in self._feature_ids.items() if n in followed}
        if not self._is_due(update.stamp, last, settings):
            return None
        chosen = steady & ~self._find_outliers(image, focal, settings)
        sent, pixels = _keep(image, chosen), update.points[usable][chosen]
        self._sent = update.stamp
        self._observed = dict(zip(sent.ids.tolist(), sent.rays, strict=True))
        self._feature_ids = {n: self._give_id(n) for n in sent.ids.tolist()}
        ids = np.array(list(self._feature_ids.values()), np.int64)
        return Features(ids, sent.rays, pixels, sent.velocities)

    def _is_due(self, stamp: float, last: _Image | None, settings: Settings) -> bool:
        """Return whether this image is nearer to the time of the next message than the next one."""
        if self._sent is None or last is None or settings.features_rate == 0:
            return True
        return stamp - self._sent > 1 / settings.features_rate - (stamp - last.stamp) / 2

    def _give_id(self, point: int) -> int:
        if point in self._feature_ids:
            return self._feature_ids[point]
        self._next_id = self._next_id % _ID_COUNT + 1
        return self._next_id - 1

    def _find_outliers(self, image: _Image, focal: float, settings: Settings) -> Bools:
        """Return which points [N] moved since the last message otherwise than the camera."""
        outliers = np.zeros(len(image.ids), np.bool_)
        limit = settings.features_outlier_distance
        rows = [n for n, one in enumerate(image.ids.tolist()) if one in self._feature_ids]
        if limit > 0 and len(rows) >= _MIN_MATCHES:
            before = np.array([self._observed[one] for one in image.ids[rows].tolist()])
            outliers[rows] = find_epipolar_outliers(before, image.rays[rows], focal, limit)
        return outliers


def _follow(last: _Image | None, stamp: float, ids: Ints, rays: Floats) -> _Image:
    """Return an image's usable points, with the velocities of those in the image before."""
    velocities = np.full_like(rays, np.nan)
    if last is not None:
        _, rows, earlier = np.intersect1d(ids, last.ids, True, return_indices=True)
        velocities[rows] = (rays[rows] - last.rays[earlier]) / (stamp - last.stamp)
    return _Image(stamp, ids, rays, velocities)


def _keep(image: _Image, chosen: Bools) -> _Image:
    return _Image(image.stamp, image.ids[chosen], image.rays[chosen], image.velocities[chosen])


def find_jumps(last: _Image | None, image: _Image, limit: float) -> tuple[Bools, Bools]:
    """Return which points [N] moved at once, and which could be compared with their motion before.

    The tracker corrects the position of a point that has drifted. Its observations before and
    after the correction are not of one point of the scene. What the camera's shaking adds to the
    motion of all points is fitted as an affine motion of the image, and does not count.

    Args:
        last: the image before.
        image: the image.
        limit: maximum distance on the plane z = 1; 0 for no limit.

    """
    jumps, compared = np.zeros((2, len(image.ids)), np.bool_)
    if last is None or limit == 0:
        return jumps, compared
    _, rows, earlier = np.intersect1d(image.ids, last.ids, True, return_indices=True)
    steps = (image.velocities[rows] - last.velocities[earlier]) * (image.stamp - last.stamp)
    known = np.isfinite(steps).all(axis=1)
    rows, steps = rows[known], steps[known]
    if len(rows):
        compared[rows] = True
        residuals = np.linalg.norm(steps - _fit_motion(image.rays[rows], steps), axis=1)
        jumps[rows] = residuals > limit
    return jumps, compared


def _fit_motion(places: Floats, steps: Floats) -> Floats:
    """Return an affine motion at places [N, 2], fitted to steps [N, 2] of which some are wrong."""
    if len(places) < _AFFINE_POINTS:
        return np.broadcast_to(np.median(steps, axis=0), steps.shape)
    design = np.column_stack([places, np.ones(len(places))])
    centre = np.median(steps, axis=0)
    fitted = np.broadcast_to(centre, steps.shape)
    for _ in range(3):
        deviations = np.linalg.norm(steps - fitted, axis=1)
        counted = deviations <= _TRIMMED_SPREADS * np.median(deviations)
        if counted.sum() < _AFFINE_POINTS:
            return fitted
        fitted = design @ np.linalg.lstsq(design[counted], steps[counted], rcond=None)[0]
    return fitted


def find_epipolar_outliers(before: Floats, now: Floats, focal: float, limit: float) -> Bools:
    """Return which of N points did not move as a rigid scene does before a moving camera.

    The essential matrix is estimated by MAGSAC++ (Barath et al., CVPR 2020), in OpenCV. If fewer
    than half of the points agree with it, none is an outlier.

    Args:
        before: rays [N, 2] on the plane z = 1 in one image.
        now: rays of the same points in a later image.
        focal: focal length in pixels.
        limit: maximum distance from the epipolar line in pixels.

    """
    matrix = np.diag([focal, focal, 1.0])
    try:
        _, mask = cv2.findEssentialMat(
            before.astype(np.float64) * focal,
            now.astype(np.float64) * focal,
            matrix,
            method=cv2.USAC_MAGSAC,
            prob=_CONFIDENCE,
            threshold=limit,
        )
    except cv2.error:
        mask = None
    outliers = np.zeros(len(now), np.bool_)
    if mask is None:
        return outliers
    inliers = mask.ravel() > 0
    return outliers if inliers.mean() < _MIN_INLIERS else ~inliers
