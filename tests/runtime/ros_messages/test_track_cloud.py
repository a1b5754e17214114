"""Rows of a track cloud, read byte by byte."""

import struct
from types import SimpleNamespace

import numpy as np

from vditrack.ros_messages.positions import Positions, Scale
from vditrack.ros_messages.track_cloud import POINT_FIELDS, TRACK_FIELDS, build_track_rows


def test_rows_of_a_cloud():
    """Read as any subscriber does: by the offsets and types that the message's fields tell."""
    update = SimpleNamespace(
        ids=np.array([7, 2**31 - 1]),
        points=np.array([[1.5, 2.5], [3.25, 4.0]], np.float32),
        visible=np.array([True, False]),
        confidence=np.array([0.75, 0.25], np.float32),
        forward_backward_error=np.array([0.5, np.inf], np.float32),
        seconds_since_model=np.array([0, 0.125], np.float32),
    )
    # A position of which a part is unknown is unknown.
    placed = Positions.with_scale(np.float32([[1, 2, 3], [np.nan, 2, 3]]), Scale.METRES)
    data = build_track_rows(placed, update, np.array([255, 0], np.uint8)).tobytes()
    assert len(data) == 2 * TRACK_FIELDS.itemsize == 80
    code = {2: "<B", 5: "<i", 7: "<f"}  # sensor_msgs/PointField: UINT8, INT32, FLOAT32.
    first, second = (
        {
            name: struct.unpack_from(code[kind], data, start + at)[0]
            for name, at, kind in POINT_FIELDS
        }
        for start in (0, TRACK_FIELDS.itemsize)
    )
    assert first == {
        **{"x": 1, "y": 2, "z": 3, "u": 1.5, "v": 2.5, "id": 7, "visible": 1},
        **{
            "object_id": 255,
            "requested": 0,
            "scale": 2,
            "confidence": 0.75,
            "forward_backward_error": 0.5,
            "seconds_since_model": 0,
        },
    }
    assert (second["id"], second["visible"], second["forward_backward_error"]) == (
        2**31 - 1,
        0,
        float("inf"),
    )
    assert np.isnan([second["x"], second["y"], second["z"]]).all()
    assert second["scale"] == 0
    assert second["object_id"] == 0 and not build_track_rows(placed, update)["object_id"].any()
