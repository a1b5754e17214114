"""A baseline for masks: each mask moves as a rigid shape with the points tracked inside it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, ImageSequence, Mask

Pose = NDArray[np.float64]
"""A similarity transform of positions in pixels, float64 [3, 3], homogeneous."""
Step = Callable[[Mask, Mask, Floats], tuple[Floats, Bools]]
"""Tracks points [N, 2] from a grey frame to the next; returns positions and which to keep."""

_POINTS = 200
"""Largest number of points of an object."""
_SPACING = 3.0
"""Smallest distance between points, in pixels."""
_QUALITY = 0.001
"""Smallest quality of a corner, as a share of the best corner's."""
_TOLERANCE = 1.0
"""Largest distance of a point from the object's motion (RANSAC inlier), in pixels."""
_MIN_INLIERS, _MIN_SHARE = 8, 0.5
"""Smallest number and share of an object's points that must be inliers."""


@dataclass(frozen=True)
class _Object:
    """An object of the first frame and its place in the newest frame."""

    index: int
    first: Bools
    """Its mask in the first frame, bool [H, W]."""
    pose: Pose
    """The transform from the first frame to the newest."""
    velocity: tuple[float, float]
    """Velocity of its centre (x, y), in pixels a frame."""
    points: Floats
    """Tracked points in the newest frame, float32 [N, 2]."""

    @property
    def outline(self) -> Bools:
        """Its mask in the newest frame without occlusion, bool [H, W]."""
        # OpenCV measures from the centre of the first pixel.
        pose = _translation(-0.5, -0.5) @ self.pose @ _translation(0.5, 0.5)
        height, width = self.first.shape
        share = self.first.astype(np.uint8) * 255
        return np.asarray(cv2.warpAffine(share, pose[:2], (width, height)) >= 128, np.bool_)

    @property
    def centre(self) -> NDArray[np.float64]:
        """Its centre in the newest frame, float64 [2] (x, y)."""
        rows, columns = np.nonzero(self.first)
        x, y, _ = self.pose @ (columns.mean() + 0.5, rows.mean() + 0.5, 1.0)
        return np.array([x, y])


def move_masks(greys: ImageSequence, first: Mask, step: Step) -> Iterator[Mask]:
    """Propagate the masks of the first frame, each as a rigid shape.

    Points are sampled on corners of the visible part of an object, and tracked into the next frame.
    The similarity transform with the most inliers (RANSAC) moves the object's first mask. With
    fewer than half of the points as inliers, or fewer than eight, the object moves at its last
    velocity without rotation. A pixel that several objects cover belongs to the one with the
    nearest tracked point.

    Args:
        greys: T grey frames, uint8 [H, W].
        first: Object indices in the first frame, uint8 [H, W].
        step: Tracks points from a frame to the next.

    Yields:
        Object indices in each frame, uint8 [H, W].

    """
    objects = [
        _Object(int(index), first == index, np.eye(3), (0.0, 0.0), np.zeros((0, 2), np.float32))
        for index in np.unique(first[first > 0])
    ]
    mask = first
    yield mask
    for before, after in pairwise(greys):
        moved = [_track_object(one, mask == one.index, before, after, step) for one in objects]
        mask = _compose_masks(moved, first.shape)
        yield mask
        objects = [_drop_hidden_points(one, mask) for one in moved]


def _track_object(one: _Object, seen: Bools, before: Mask, after: Mask, step: Step) -> _Object:
    """Track an object into the next frame, given its visible pixels [H, W] in the frame before."""
    points = _sample_points(before, seen, one.points)
    motion, there = _estimate_motion(points, before, after, step)
    if len(there) < max(_MIN_INLIERS, _MIN_SHARE * len(points)):
        return replace(one, pose=_translation(*one.velocity) @ one.pose, points=there[:0])
    moved = replace(one, pose=motion @ one.pose, points=there)
    x, y = (moved.centre - one.centre).tolist()
    return replace(moved, velocity=(x, y))


def _estimate_motion(points: Floats, before: Mask, after: Mask, step: Step) -> tuple[Pose, Floats]:
    """Return the motion of points [N, 2] with the most inliers, and the inliers [M, 2] after it."""
    failed = np.eye(3), np.zeros((0, 2), np.float32)
    if len(points) < _MIN_INLIERS:
        return failed
    there, kept = step(before, after, points)
    points, there = points[kept], there[kept]
    if len(points) < _MIN_INLIERS:
        return failed
    motion, inliers = cv2.estimateAffinePartial2D(
        points, there, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE
    )
    if motion is None:
        return failed
    return np.vstack([motion, [0, 0, 1]]), there[inliers[:, 0] == 1]


def _sample_points(grey: Mask, seen: Bools, points: Floats) -> Floats:
    """Return points [N, 2] with further ones on visible corners that are not near any of them."""
    free = seen.astype(np.uint8)
    for x, y in points.astype(np.intp).tolist():
        cv2.circle(free, (x, y), int(_SPACING), 0, -1)
    wanted = _POINTS - len(points)
    if wanted <= 0 or not free.any():
        return points
    corners = cv2.goodFeaturesToTrack(grey, wanted, _QUALITY, _SPACING, mask=free)
    if corners is None:
        return points
    return np.concatenate([points, np.asarray(corners[:, 0] + 0.5, np.float32)])


def _compose_masks(objects: Sequence[_Object], shape: tuple[int, ...]) -> Mask:
    """Return object indices [H, W] of objects that may overlap.

    A pixel belongs to the object with the nearest point; of objects without points, to the last.
    """
    mask, nearest = np.zeros(shape, np.uint8), np.full(shape, np.inf, np.float32)
    for one in objects:
        outline, distance = one.outline, _point_distances(one.points, shape)
        won = outline & ((mask == 0) | (distance <= nearest))
        mask[won], nearest[won] = one.index, distance[won]
    return mask


def _point_distances(points: Floats, shape: tuple[int, ...]) -> Floats:
    """Return the distance of each pixel [H, W] from the nearest point; inf without points."""
    if not len(points):
        return np.full(shape, np.inf, np.float32)
    elsewhere = np.ones(shape, np.uint8)
    columns, rows = points.astype(np.intp).T
    elsewhere[rows, columns] = 0
    return np.asarray(cv2.distanceTransform(elsewhere, cv2.DIST_L2, 3), np.float32)


def _drop_hidden_points(one: _Object, mask: Mask) -> _Object:
    """Drop the points of an object that are not on its visible pixels."""
    columns, rows = one.points.astype(np.intp).T
    return replace(one, points=one.points[mask[rows, columns] == one.index])


def _translation(x: float, y: float) -> Pose:
    """Return the transform that translates by (x, y) pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
