"""Exact tracks from rendered depth: a pixel is lifted to the body it shows and carried along.

World coordinates are in metres. A camera looks along its own -z, x to the right and y up, as in
OpenGL and MuJoCo; ``turn`` matrices map from a body's or camera's own axes to the world's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles
from vditrack.coordinates import pixel_indices

_SLACK = 0.001
"""Metres: far above the depth buffer's rounding, far below the thickness of any object."""


@dataclass(frozen=True)
class Footage:
    """What a camera saw in T frames, and where it and the G bodies were."""

    focal: float
    """In pixels; the axis passes through the middle of the picture, pixels are square."""
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""
    depth: NDArray[np.float32]
    """[T, H, W] distance along the camera's axis at each pixel's centre."""
    bodies: NDArray[np.int16]
    """[T, H, W] index of the rigid body at each pixel's centre, -1 where there is none."""
    body_place: Doubles
    """[T, G, 3]"""
    body_turn: Doubles
    """[T, G, 3, 3]"""
    camera_place: Doubles
    """[T, 3]"""
    camera_turn: Doubles
    """[T, 3, 3]"""


@dataclass(frozen=True)
class BodyAnchors:
    """Points fixed to rigid bodies: index ``[N]``, and place in the body's own axes ``[N, 3]``."""

    body: NDArray[np.int64]
    place: Doubles


def anchor(footage: Footage, time: int, positions: Doubles) -> BodyAnchors:
    """Fix what is seen in frame ``time`` at pixel centres ``positions [N, 2]`` to its body."""
    columns, rows = pixel_indices(positions).T
    height, width = footage.depth.shape[1:]
    ahead = footage.depth[time, rows, columns].astype(np.float64)
    right = (positions[:, 0] - width / 2) * ahead / footage.focal
    up = (height / 2 - positions[:, 1]) * ahead / footage.focal
    seen = np.stack([right, up, -ahead], axis=-1)
    world = footage.camera_place[time] + seen @ footage.camera_turn[time].T
    body = footage.bodies[time, rows, columns].astype(np.int64)
    away = world - footage.body_place[time, body]
    # The inverse of a turn is its transpose.
    place = np.einsum("nji,nj->ni", footage.body_turn[time, body], away)
    return BodyAnchors(body, place)


def track(footage: Footage, anchors: BodyAnchors) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return where the anchors are, ``[N, T, 2]``, and whether they are seen, ``[N, T]``.

    A point is seen where it is in the picture, its body is drawn at its pixel or one beside it, and
    nothing drawn at its pixel is nearer. Nearer means by more than a millimetre and half the
    largest step in depth from that pixel to one of its eight neighbours on the same body: the point
    lies up to half a pixel beside the pixel's centre along each axis, and a flat surface slopes by
    no more than that in between.
    """
    tracked = [_seen_at(footage, anchors, time) for time in range(len(footage.frames))]
    points = np.stack([positions for positions, _ in tracked], axis=1)
    visible = np.stack([seen for _, seen in tracked], axis=1)
    return points.astype(np.float32), visible


def _seen_at(
    footage: Footage, anchors: BodyAnchors, time: int
) -> tuple[Doubles, NDArray[np.bool_]]:
    positions, ahead = _projected(footage, anchors, time)
    height, width = footage.depth.shape[1:]
    seen: NDArray[np.bool_] = (ahead > 0) & ((positions >= 0) & (positions < (width, height))).all(
        axis=-1
    )
    columns, rows = pixel_indices(positions[seen]).T
    depth, bodies = _around(footage, time, rows, columns)
    step = np.where(bodies == bodies[:, :1], np.abs(depth - depth[:, :1]), 0).max(axis=1)
    drawn = (bodies == anchors.body[seen, None]).any(axis=1)
    seen[seen] = drawn & (ahead[seen] <= depth[:, 0] + step / 2 + _SLACK)
    return positions, seen


def _projected(footage: Footage, anchors: BodyAnchors, time: int) -> tuple[Doubles, Doubles]:
    """Return raster positions ``[N, 2]`` and distances along the axis ``[N]``."""
    turn = footage.body_turn[time, anchors.body]
    world = footage.body_place[time, anchors.body] + np.einsum("nij,nj->ni", turn, anchors.place)
    own = (world - footage.camera_place[time]) @ footage.camera_turn[time]
    ahead = -own[:, 2]
    # A point behind the camera has no position; the sign above keeps it unseen.
    safe = np.where(np.abs(ahead) > 1e-6, ahead, 1e-6)
    height, width = footage.depth.shape[1:]
    x = width / 2 + footage.focal * own[:, 0] / safe
    y = height / 2 - footage.focal * own[:, 1] / safe
    return np.stack([x, y], axis=-1), ahead


def _around(
    footage: Footage, time: int, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[Doubles, NDArray[np.int16]]:
    """Return depth and body ``[N, 9]`` of pixels and their neighbours, the pixel itself first."""
    height, width = footage.depth.shape[1:]
    steps = np.array([(0, 0), *((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)])
    near_rows = np.clip(rows[:, None] + steps[:, 0], 0, height - 1)
    near_columns = np.clip(columns[:, None] + steps[:, 1], 0, width - 1)
    depth = footage.depth[time, near_rows, near_columns].astype(np.float64)
    return depth, footage.bodies[time, near_rows, near_columns]
