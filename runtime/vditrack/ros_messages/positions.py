"""Positions of tracked points in space, and what is known of their scale."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.depth_images import DepthImage


class Scale(IntEnum):
    """The unit of a position in space."""

    UNKNOWN = 0
    """x, y and z are NaN."""
    PLANE = 1
    """The point is somewhere on the ray through (x, y, z), which is on the plane z = 1."""
    METRES = 2
    """x, y and z are metres."""


@dataclass(frozen=True)
class Positions:
    """The positions of N points."""

    xyz: Floats
    """float32 [N, 3]; NaN where unknown."""
    scale: NDArray[np.uint8]
    """[N], one of `Scale` for each point."""

    @classmethod
    def with_scale(cls, xyz: Floats, scale: Scale) -> Positions:
        """Return positions of one scale; those that are not finite are unknown.

        Args:
            xyz: [N, 3].
            scale: of the known positions.

        """
        known = np.asarray(np.isfinite(xyz).all(axis=1), np.bool_)
        placed = np.where(known[:, None], xyz, np.float32(np.nan)).astype(np.float32)
        return cls(placed, np.where(known, scale, Scale.UNKNOWN).astype(np.uint8))

    @classmethod
    def unknown(cls, count: int) -> Positions:
        """Return unknown positions of so many points."""
        return cls.with_scale(np.full((count, 3), np.nan, np.float32), Scale.UNKNOWN)


def place_on_plane(points: Floats, camera: Camera) -> Positions:
    """Return where the rays of pixels meet the plane z = 1 of the camera's optical frame.

    Args:
        points: pixels (x, y) [N, 2] of the image.
        camera: calibration of the camera.

    """
    rays = camera.unproject(points)
    return Positions.with_scale(np.column_stack([rays, np.ones(len(rays))]), Scale.PLANE)


def place_by_depth(points: Floats, camera: Camera, depth: DepthImage) -> Positions:
    """Return the positions of pixels in metres; unknown where the depth is.

    Args:
        points: pixels (x, y) [N, 2] of the image.
        camera: calibration of the camera.
        depth: aligned to the image and of its size.

    """
    rays, z = camera.unproject(points), depth.sample(points)
    return Positions.with_scale(np.column_stack([rays * z[:, None], z]), Scale.METRES)
