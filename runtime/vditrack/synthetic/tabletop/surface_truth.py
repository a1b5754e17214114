"""Computes exact tracks from rendered depth: pixels are lifted to the rigid body they show.

World coordinates are in metres. A camera looks along its -z axis, x to the right and y up, as in
OpenGL and MuJoCo. ``turn`` matrices rotate from the axes of a body or camera to the world's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Doubles, Floats, Indices, Ints
from vditrack.coordinates import pixel_indices

_SLACK = 0.001
"""Depth tolerance in metres: far above the depth buffer's rounding, far below any thickness."""


@dataclass(frozen=True)
class Footage:
    """T rendered frames, and the poses of the camera and G bodies in them."""

    focal: float
    """Focal length in pixels; the optical axis meets the centre of the frame, pixels are square."""
    frames: NDArray[np.uint8]
    """RGB frames, [T, H, W, 3]."""
    depth: Floats
    """Distance along the camera's axis at each pixel's centre in metres, [T, H, W]."""
    bodies: NDArray[np.int16]
    """Index of the rigid body at each pixel's centre, -1 for none, [T, H, W]."""
    body_place: Doubles
    """Positions of the bodies, [T, G, 3]."""
    body_turn: Doubles
    """Rotations of the bodies, [T, G, 3, 3]."""
    camera_place: Doubles
    """Positions of the camera, [T, 3]."""
    camera_turn: Doubles
    """Rotations of the camera, [T, 3, 3]."""


@dataclass(frozen=True)
class BodyAnchors:
    """Points fixed to rigid bodies."""

    body: Ints
    """Index of each point's body, [N]."""
    place: Doubles
    """Position in the axes of the body, [N, 3]."""


def anchor_pixels(footage: Footage, time: int, positions: Doubles) -> BodyAnchors:
    """Fix the points that frame ``time`` shows at pixel centres, [N, 2], to their bodies."""
    columns, rows = pixel_indices(positions).T
    height, width = footage.depth.shape[1:]
    ahead = footage.depth[time, rows, columns].astype(np.float64)
    right = (positions[:, 0] - width / 2) * ahead / footage.focal
    up = (height / 2 - positions[:, 1]) * ahead / footage.focal
    seen = np.stack([right, up, -ahead], axis=-1)
    world = footage.camera_place[time] + seen @ footage.camera_turn[time].T
    body = footage.bodies[time, rows, columns].astype(np.int64)
    away = world - footage.body_place[time, body]
    # The inverse of a rotation is its transpose.
    place = np.einsum("nji,nj->ni", footage.body_turn[time, body], away)
    return BodyAnchors(body, place)


def track_anchors(footage: Footage, anchors: BodyAnchors) -> tuple[Floats, Bools]:
    """Return the positions, float32 [N, T, 2], and visibility, bool [N, T], of the anchors.

    A point is visible if it is inside the frame, its body appears at its pixel or at one of the
    eight neighbours, and the surface rendered at its pixel is not nearer to the camera. Nearer
    means by more than a millimetre plus half the largest depth step from that pixel to a neighbour
    on the same body: the point is up to half a pixel from the pixel's centre along each axis, and
    the depth of a flat surface changes by no more than that in between.
    """
    tracked = [_track_frame(footage, anchors, time) for time in range(len(footage.frames))]
    points = np.stack([positions for positions, _ in tracked], axis=1)
    visible = np.stack([seen for _, seen in tracked], axis=1)
    return points.astype(np.float32), visible


def _track_frame(footage: Footage, anchors: BodyAnchors, time: int) -> tuple[Doubles, Bools]:
    positions, ahead = _project(footage, anchors, time)
    height, width = footage.depth.shape[1:]
    seen: Bools = (ahead > 0) & ((positions >= 0) & (positions < (width, height))).all(axis=-1)
    columns, rows = pixel_indices(positions[seen]).T
    depth, bodies = _gather_neighbours(footage, time, rows, columns)
    step = np.where(bodies == bodies[:, :1], np.abs(depth - depth[:, :1]), 0).max(axis=1)
    drawn = (bodies == anchors.body[seen, None]).any(axis=1)
    seen[seen] = drawn & (ahead[seen] <= depth[:, 0] + step / 2 + _SLACK)
    return positions, seen


def _project(footage: Footage, anchors: BodyAnchors, time: int) -> tuple[Doubles, Doubles]:
    """Return positions in pixels, [N, 2], and distances along the camera's axis, [N]."""
    turn = footage.body_turn[time, anchors.body]
    world = footage.body_place[time, anchors.body] + np.einsum("nij,nj->ni", turn, anchors.place)
    own = (world - footage.camera_place[time]) @ footage.camera_turn[time]
    ahead = -own[:, 2]
    # A point behind the camera has no position; the sign of ``ahead`` keeps it invisible.
    safe = np.where(np.abs(ahead) > 1e-6, ahead, 1e-6)
    height, width = footage.depth.shape[1:]
    x = width / 2 + footage.focal * own[:, 0] / safe
    y = height / 2 - footage.focal * own[:, 1] / safe
    return np.stack([x, y], axis=-1), ahead


def _gather_neighbours(
    footage: Footage, time: int, rows: Indices, columns: Indices
) -> tuple[Doubles, NDArray[np.int16]]:
    """Return depth and body, [N, 9], of pixels and their neighbours, the pixel itself first."""
    height, width = footage.depth.shape[1:]
    steps = np.array([(0, 0), *((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)])
    near_rows = np.clip(rows[:, None] + steps[:, 0], 0, height - 1)
    near_columns = np.clip(columns[:, None] + steps[:, 1], 0, width - 1)
    depth = footage.depth[time, near_rows, near_columns].astype(np.float64)
    return depth, footage.bodies[time, near_rows, near_columns]
