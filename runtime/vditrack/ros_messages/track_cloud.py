"""Tracked points as rows of a sensor_msgs/PointCloud2."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
        ("confidence", "<f4"),
        ("forward_backward_error", "<f4"),
        ("seconds_since_model", "<f4"),
    ],
    # Readers that lay a C struct over a row expect each field where a compiler puts it.
    align=True,
)
"""One row a point.

- x, y, z: position in the camera's optical frame; NaN where unknown.
- u, v: position in pixels; (0, 0) is the upper-left corner of the upper-left pixel.
- id: stable for the life of a point. PointCloud2 has no integers of 64 bits.
- visible: 1 or 0.
- object_id: index of the object that the point is on; 0: of none, or not known.
- confidence: in [0, 1]; at least 0.5 exactly where the point is visible.
- forward_backward_error: forward-backward distance in model pixels; inf where unknown.
- seconds_since_model: seconds since the model last placed the point; 0: in this frame.
"""

_POINT_FIELD = {"u1": 2, "i4": 5, "f4": 7}
"""Constants of sensor_msgs/PointField, by NumPy's kind and size."""

POINT_FIELDS = tuple(
    (name, field[1], _POINT_FIELD[field[0].str[1:]])
    for name, field in (TRACK_FIELDS.fields or {}).items()
)
"""(name, offset, datatype) of each sensor_msgs/PointField; all have a count of 1."""


class PlacedPoints(Protocol):
    """Points in a frame, such as a `vditrack.streams.realtime.LiveUpdate`."""

    @property
    def ids(self) -> NDArray[np.integer[Any]]:
        """One of each [N]."""

    @property
    def points(self) -> NDArray[np.float32]:
        """Where each is [N, 2] (x, y), in pixels."""

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Of each [N]."""

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Of each [N]."""

    @property
    def forward_backward_error(self) -> NDArray[np.float32]:
        """Of each [N]."""

    @property
    def seconds_since_model(self) -> NDArray[np.float32]:
        """Of each [N], in seconds."""


def track_rows(
    xyz: NDArray[np.float32], update: PlacedPoints, objects: NDArray[np.uint8] | None = None
) -> NDArray[np.void]:
    """Give the rows of a cloud, [N] of `TRACK_FIELDS`: ``rows.tobytes()`` is the message's data.

    Args:
        xyz: [N, 3] positions in the camera's optical frame, NaN where unknown.
        update: the same N points in the picture.
        objects: [N] index of the object that each is on; none where nothing is known.

    """
    rows = np.zeros(len(xyz), TRACK_FIELDS)
    rows["x"], rows["y"], rows["z"] = xyz.T
    rows["u"], rows["v"] = update.points.T
    rows["id"] = update.ids
    rows["visible"] = update.visible
    rows["object_id"] = 0 if objects is None else objects
    rows["confidence"] = update.confidence
    rows["forward_backward_error"] = update.forward_backward_error
    rows["seconds_since_model"] = update.seconds_since_model
    return rows
