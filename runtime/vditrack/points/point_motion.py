"""How tracked points move, and where lost ones are expected.

A point keeps its last velocity for a while. A point that moved with the camera when it was last
tracked stands still in the scene: it is expected where the camera's motion leads, seen or not.
"""

import numpy as np

from vditrack.arrays import Bools, Floats, Indices
from vditrack.bundle.configuration import CameraMotion, FlowTracking
from vditrack.bundle.redetection import Recovery
from vditrack.points.patch_alignment import Placement
from vditrack.points.point_memory import PointMemory, View


def are_static(memory: PointMemory, view: View, origin: Floats, settings: CameraMotion) -> Bools:
    """Return which points [N] stand still in the scene, as far as is known.

    Args:
        memory: of the points.
        view: the frame that they are tracked into.
        origin: [N, 2] (x, y), where they were in the frame before, in pixels of this frame.
        settings: of the camera's motion.

    """
    if not view.camera.known:
        return np.zeros(len(origin), np.bool_)
    camera_speed = np.linalg.norm(view.camera.step(origin), axis=1) / view.unit / view.intervals
    limit = settings.static_speed + settings.static_share * camera_speed
    static = ~memory.moving | memory.query.textureless | (memory.relative_speed < limit)
    return np.asarray(static, np.bool_)


def predict_steps(memory: PointMemory, view: View, origin: Floats, static: Bools) -> Floats:
    """Return how far points are expected to move into this frame, [N, 2] in its pixels."""
    own = memory.velocity * view.intervals / view.scale
    return np.where(static[:, None], view.camera.step(origin), own)


def restart_motion(memory: PointMemory, rows: Indices) -> None:
    """Count points in the given rows as tracked, with unknown motion, in place."""
    for value in (memory.velocity, memory.lost_frames, memory.missed_frames, memory.radius):
        value[rows] = 0
    memory.moving[rows] = memory.unplaced[rows] = False


def update_motion(
    memory: PointMemory,
    view: View,
    placement: Placement,
    origin: Floats,
    static: Bools,
    tracked: Bools,
    settings: FlowTracking,
) -> None:
    """Update velocities, and for how long and how far lost points may have moved, in place.

    Static points that are lost are placed where the camera's motion leads.

    Args:
        memory: of the points.
        view: the frame that they are tracked into.
        placement: of their patches in it.
        origin: [N, 2] (x, y), where they were in the frame before, in pixels of this frame.
        static: [N] which points stand still in the scene.
        tracked: [N] whether optical flow tracks the point into this frame.
        settings: of flow tracking.

    """
    camera_step = view.camera.step(origin)
    lost_static = static & ~tracked
    placement.points[lost_static] = origin[lost_static] + camera_step[lost_static]
    step = placement.points - origin
    weight = np.where(memory.moving, np.float32(settings.velocity_update), np.float32(1))
    newest = step * view.scale / view.intervals
    updated = (1 - weight[:, None]) * memory.velocity + weight[:, None] * newest
    slowed = np.where(static[:, None], newest, settings.velocity_decay * memory.velocity)
    memory.velocity[:] = np.where(tracked[:, None], updated, slowed)
    if view.camera.known:
        relative = np.linalg.norm(step - camera_step, axis=1) / view.unit / view.intervals
        smoothed = (1 - weight) * memory.relative_speed + weight * relative
        memory.relative_speed[:] = np.where(tracked, smoothed, memory.relative_speed)
    memory.moving[tracked] = True
    was_tracked = memory.lost_frames == 0
    memory.lost_frames[:] = np.where(tracked, 0, memory.lost_frames + view.intervals)
    if settings.recovery is not None:
        radius = _grow_radius(memory, view, static, was_tracked, settings.camera, settings.recovery)
        memory.radius[:] = np.where(tracked, 0, radius)
        expected = _expect_inside(memory, view, placement.points, static, settings.recovery)
        missed = memory.missed_frames + view.intervals * expected
        memory.missed_frames[:] = np.where(tracked, 0, missed)


def _grow_radius(
    memory: PointMemory,
    view: View,
    static: Bools,
    was_tracked: Bools,
    camera: CameraMotion,
    recovery: Recovery,
) -> Floats:
    """Return how far from their predicted positions points may return, [N]."""
    growth = np.where(static, camera.static_radius_growth, recovery.radius_growth)
    start = np.where(static, camera.static_radius, recovery.radius)
    radius = np.where(was_tracked, start, memory.radius) + view.intervals * growth
    return np.asarray(radius, np.float32)


def _expect_inside(
    memory: PointMemory, view: View, predicted: Floats, static: Bools, settings: Recovery
) -> Bools:
    """Return which lost points [N] should be seen if nothing covers them."""
    height, width = view.image.size
    size = np.array([width, height], np.float32)
    inside = np.minimum(predicted, size - predicted).min(axis=1)
    margin = np.where(static, memory.radius, settings.radius)
    return np.asarray(inside > margin * view.unit, np.bool_)
