"""Masks moved by points that are followed in them, each as a rigid shape: a peer of propagation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Mask

Pose = NDArray[np.float64]
"""[3, 3] homogeneous similarity of positions in pixels."""
Step = Callable[[Mask, Mask, Floats], tuple[Floats, Bools]]
"""From two grey frames and points [N, 2] in the first: points in the second, and which are kept."""

_POINTS = 200
"""Of an object at most."""
_SPACING = 3.0
"""Least distance of points, in pixels."""
_QUALITY = 0.001
"""Of the weakest corner, as a share of the best one's."""
_TOLERANCE = 1.0
"""Farthest that a point may lie from where the object's motion takes it, in pixels."""
_FEWEST, _SHARE = 8, 0.5
"""Of an object's points, how many and what share have to agree on how it moved."""


@dataclass(frozen=True)
class _Object:
    """An object of the first frame, and where it is in the newest."""

    index: int
    first: Bools
    """[H, W] its mask in the first frame."""
    pose: Pose
    """From the first frame to the newest."""
    velocity: tuple[float, float]
    """Of its centre (x, y), in pixels a frame."""
    points: Floats
    """[N, 2] that are followed, in the newest frame."""

    @property
    def outline(self) -> Bools:
        """[H, W] its mask in the newest frame, whatever is in front of it."""
        # OpenCV counts from the first pixel's centre.
        pose = _shift(-0.5, -0.5) @ self.pose @ _shift(0.5, 0.5)
        height, width = self.first.shape
        share = self.first.astype(np.uint8) * 255
        return np.asarray(cv2.warpAffine(share, pose[:2], (width, height)) >= 128, np.bool_)

    @property
    def centre(self) -> NDArray[np.float64]:
        """[2] (x, y) in the newest frame."""
        rows, columns = np.nonzero(self.first)
        x, y, _ = self.pose @ (columns.mean() + 0.5, rows.mean() + 0.5, 1.0)
        return np.array([x, y])


def move_masks(greys: Sequence[Mask], first: Mask, step: Step) -> Mask:
    """Carry the objects of the first frame, each moved as a whole.

    In each frame points are spread over what is seen of an object, where those before were lost,
    and followed into the next one. The similarity that most of them agree on (RANSAC) moves the
    object's first mask; where fewer than half of them do, or than eight, it goes on as it last
    moved, without turning. A pixel that several objects claim belongs to the one with a followed
    point nearest to it.

    Args:
        greys: T frames [H, W].
        first: [H, W] of object indices.
        step: follows points from frame to frame.

    Returns:
        [T, H, W]

    """
    objects = [
        _Object(int(index), first == index, np.eye(3), (0.0, 0.0), np.zeros((0, 2), np.float32))
        for index in np.unique(first[first > 0])
    ]
    masks = [first]
    for before, after in pairwise(greys):
        moved = [_followed(one, masks[-1] == one.index, before, after, step) for one in objects]
        masks.append(_laid_out(moved, first.shape))
        objects = [_on_mask(one, masks[-1]) for one in moved]
    return np.stack(masks)


def _followed(one: _Object, seen: Bools, before: Mask, after: Mask, step: Step) -> _Object:
    """Follow an object that is seen at pixels [H, W] of the frame before."""
    points = _spread(before, seen, one.points)
    motion, there = _agreed(points, before, after, step)
    if len(there) < max(_FEWEST, _SHARE * len(points)):
        return replace(one, pose=_shift(*one.velocity) @ one.pose, points=there[:0])
    moved = replace(one, pose=motion @ one.pose, points=there)
    x, y = (moved.centre - one.centre).tolist()
    return replace(moved, velocity=(x, y))


def _agreed(points: Floats, before: Mask, after: Mask, step: Step) -> tuple[Pose, Floats]:
    """Motion that most of the points [N, 2] agree on, and where it takes those [M, 2] that do."""
    nowhere = np.eye(3), np.zeros((0, 2), np.float32)
    if len(points) < _FEWEST:
        return nowhere
    there, kept = step(before, after, points)
    points, there = points[kept], there[kept]
    if len(points) < _FEWEST:
        return nowhere
    motion, agreed = cv2.estimateAffinePartial2D(
        points, there, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE
    )
    if motion is None:
        return nowhere
    return np.vstack([motion, [0, 0, 1]]), there[agreed[:, 0] == 1]


def _spread(grey: Mask, seen: Bools, points: Floats) -> Floats:
    """Points [N, 2], and further ones on corners that are seen and not near any of them."""
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


def _laid_out(objects: Sequence[_Object], shape: tuple[int, ...]) -> Mask:
    """[H, W] of the objects' indices where they are now; a later one is in front where none is."""
    mask, nearest = np.zeros(shape, np.uint8), np.full(shape, np.inf, np.float32)
    for one in objects:
        outline, distance = one.outline, _distances(one.points, shape)
        won = outline & ((mask == 0) | (distance <= nearest))
        mask[won], nearest[won] = one.index, distance[won]
    return mask


def _distances(points: Floats, shape: tuple[int, ...]) -> Floats:
    """[H, W] distance of each pixel from the nearest of points [N, 2]; infinite without any."""
    if not len(points):
        return np.full(shape, np.inf, np.float32)
    elsewhere = np.ones(shape, np.uint8)
    columns, rows = points.astype(np.intp).T
    elsewhere[rows, columns] = 0
    return np.asarray(cv2.distanceTransform(elsewhere, cv2.DIST_L2, 3), np.float32)


def _on_mask(one: _Object, mask: Mask) -> _Object:
    """Forget the points that are no longer on what is seen of their object."""
    columns, rows = one.points.astype(np.intp).T
    return replace(one, points=one.points[mask[rows, columns] == one.index])


def _shift(x: float, y: float) -> Pose:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
