"""Tracked points as rows of a sensor_msgs/PointCloud2."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats
from vditrack.ros_messages.point_fields import point_field_layout
from vditrack.ros_messages.positions import Positions

TRACK_FIELDS = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("u", "<f4"),
        ("v", "<f4"),
        ("id", "<i4"),
        ("visible", "u1"),
        ("object_id", "u1"),
        ("requested", "u1"),
        ("scale", "u1"),
        ("confidence", "<f4"),
        ("forward_backward_error", "<f4"),
        ("seconds_since_model", "<f4"),
    ],
    # Readers that map a C struct onto a row expect the compiler's alignment.
    align=True,
)
"""One row per point.

- x, y, z: position in the frame of the message, see scale; NaN where unknown.
- u, v: position in pixels; (0, 0) is the upper-left corner of the upper-left pixel.
- id: constant for the life of a point. PointCloud2 has no 64-bit integers.
- visible: 1 or 0.
- object_id: index of the object that the point is on; 0 for none or unknown.
- requested: 1 for a point that was asked for, where that is known.
- scale: what x, y, z are, one of `vditrack.ros_messages.positions.Scale`.
- confidence: in [0, 1]; at least 0.5 exactly where the point is visible.
- forward_backward_error: forward-backward distance in model pixels; inf where unknown.
- seconds_since_model: seconds since the frame in which the model last placed the point; 0 in that
  frame.
"""

POINT_FIELDS = point_field_layout(TRACK_FIELDS)
"""(name, offset, datatype) of each sensor_msgs/PointField; every count is 1."""


class PlacedPoints(Protocol):
    """N points in a frame, for example a `vditrack.streams.realtime.LiveUpdate`."""

    @property
    def ids(self) -> NDArray[np.integer[Any]]:
        """Identifiers [N]."""

    @property
    def points(self) -> Floats:
        """Positions (x, y) [N, 2] in pixels of the frame."""

    @property
    def visible(self) -> Bools:
        """Visibility [N]."""

    @property
    def confidence(self) -> Floats:
        """Confidence [N] in [0, 1]."""

    @property
    def forward_backward_error(self) -> Floats:
        """Forward-backward distance [N] in model pixels; inf where unknown."""

    @property
    def seconds_since_model(self) -> Floats:
        """Seconds [N] since the model last placed the point."""


def build_track_rows(
    positions: Positions,
    update: PlacedPoints,
    objects: NDArray[np.uint8] | None = None,
    requested: Bools | None = None,
) -> NDArray[np.void]:
    """Return the rows of a track cloud, [N] of `TRACK_FIELDS`.

    Args:
        positions: of N points in space.
        update: the same N points in the frame.
        objects: uint8 [N] index of the object that each point is on; None if unknown.
        requested: [N] which points were asked for; None if unknown.

    """
    rows = np.zeros(len(positions.xyz), TRACK_FIELDS)
    rows["x"], rows["y"], rows["z"] = positions.xyz.T
    rows["scale"] = positions.scale
    rows["u"], rows["v"] = update.points.T
    rows["id"] = update.ids
    rows["visible"] = update.visible
    rows["object_id"] = 0 if objects is None else objects
    rows["requested"] = 0 if requested is None else requested
    rows["confidence"] = update.confidence
    rows["forward_backward_error"] = update.forward_backward_error
    rows["seconds_since_model"] = update.seconds_since_model
    return rows


def describe_track_rows(rows: NDArray[np.void]) -> dict[str, Any]:
    """Return the fields of a sensor_msgs/PointCloud2 that describe its rows.

    The header, `fields` (from `POINT_FIELDS`) and `data` (the rows' bytes) are left to the caller,
    because ROS and rosbags use different types for them.

    Args:
        rows: [N] of `TRACK_FIELDS`.

    """
    return {
        "height": 1,
        "width": len(rows),
        "is_bigendian": False,
        "point_step": TRACK_FIELDS.itemsize,
        "row_step": rows.nbytes,
        "is_dense": bool(all(np.isfinite(rows[axis]).all() for axis in "xyz")),
    }
