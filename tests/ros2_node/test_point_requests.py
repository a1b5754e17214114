"""Requested points, read from clouds and clicks."""

from types import SimpleNamespace

import numpy as np
import pytest

from doubles.ros_loopback import camera_info
from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack_ros.points.requests import read_clicked_pixel, read_pixels, read_requested_pixels

SIZE = (120, 160)


def cloud(points, names="xy", kind="<f4", datatype=7, big=False, padding=0):
    row = np.dtype([(name, kind) for name in names] + [("more", f"V{padding}")] * bool(padding))
    rows = np.zeros(len(points), row)
    for name, column in zip(names, np.transpose(points), strict=False):
        rows[name] = column
    fields = [
        SimpleNamespace(name=name, offset=row.fields[name][1], datatype=datatype) for name in names
    ]
    return SimpleNamespace(
        fields=fields,
        is_bigendian=big,
        height=1,
        width=len(rows),
        point_step=row.itemsize,
        row_step=rows.nbytes,
        data=rows.tobytes(),
    )


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"names": "uv"},
        {"kind": ">f8", "datatype": 8, "big": True},
        {"kind": "<u2", "datatype": 4, "padding": 5},
    ],
)
def test_clouds_of_pixels(form):
    points = [[1, 2], [30, 40], [5, 6]]
    np.testing.assert_array_equal(read_pixels(cloud(points, **form)), points)


def test_pixels_come_before_places_in_space():
    np.testing.assert_array_equal(read_pixels(cloud([[1, 2, 3, 4]], names="xyuv")), [[3, 4]])


def test_clouds_that_cannot_be_read():
    with pytest.raises(InputError, match="fields a, b"):
        read_pixels(cloud([[1, 2]], names="ab"))
    short = cloud([[1, 2], [3, 4]])
    short.data = short.data[:-1]
    with pytest.raises(InputError, match="layout"):
        read_pixels(short)


def test_fields_of_a_service_call():
    request = read_requested_pixels({"stamp": 5, "x": [1.0, 2.5], "y": [3, 4]})
    assert request.stamp == 5
    np.testing.assert_array_equal(request.pixels, [[1, 3], [2.5, 4]])
    assert read_requested_pixels({"x": 1.0, "y": 2.0}).stamp == 0
    for wrong in ({}, {"x": [1.0]}, {"x": [], "y": []}):
        with pytest.raises(InputError, match="values of x"):
            read_requested_pixels(wrong)


def click(x, y, z, frame_id=""):
    return SimpleNamespace(
        point=SimpleNamespace(x=x, y=y, z=z), header=SimpleNamespace(frame_id=frame_id)
    )


def test_clicks_in_pixels_and_in_space():
    camera = Camera.from_info(camera_info(SIZE, focal=100.0))

    def read(point, known):
        return read_clicked_pixel(point, known, "camera", lambda one, _: [one.header.frame_id])

    for frame_id in ("", "camera"):
        np.testing.assert_array_equal(read(click(3, 4, 0, frame_id), None), [[3, 4]])
    # On the axis, and at 45 degrees to its right.
    for x, expected in ((0.0, [80, 60]), (0.5, [130, 60])):
        found = read(click(x, 0.0, 1.0, "camera"), camera)
        np.testing.assert_allclose(found, [expected], atol=1e-4)
    # In another frame, a place on the floor is no pixel.
    for z in (0.0, 1.0, -1.0):
        assert read(click(0.0, 0.0, z, "map"), camera) == ["map"]
    for wrong, known, told in (
        (click(0.0, 0.0, 0.0, "map"), None, "camera_info"),
        (click(0.0, 0.0, 1.0), None, "camera_info"),
        (click(0.0, 0.0, -1.0), camera, "behind"),
    ):
        with pytest.raises(InputError, match=told):
            read(wrong, known)
