"""Requests on `~/add_points` and `~/add_point`, converted to pixels of the image. Needs no ROS."""

from typing import Any

import numpy as np

from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.point_fields import read_point_fields


def read_pixels(cloud: Any) -> Floats:  # noqa: ANN401
    """Return the pixels (x, y) float32 [N, 2] of a sensor_msgs/PointCloud2.

    Args:
        cloud: has the fields u and v, or x and y, in pixels.

    Raises:
        InputError: the cloud has neither pair of fields, or its data do not fit its layout.

    """
    fields = {field.name for field in cloud.fields}
    names = next((pair for pair in (("u", "v"), ("x", "y")) if fields >= {*pair}), None)
    if names is None:
        listed = ", ".join(field.name for field in cloud.fields) or "none"
        raise InputError(
            f"~/add_points has the fields {listed}. Publish u and v, or x and y, in pixels."
        )
    try:
        points = read_point_fields(cloud, names)
    except InputError as error:
        raise InputError(f"~/add_points cannot be read: {error}") from error
    return np.stack([points[name].ravel() for name in names], axis=1).astype(np.float32)


def read_clicked_pixel(point: Any, camera: Camera | None, frame_id: str) -> Floats:  # noqa: ANN401
    """Return the pixel (x, y) float32 [1, 2] of a geometry_msgs/PointStamped.

    If z is 0, x and y are pixels. If z is positive, the point is in the camera's optical frame and
    is projected into the image.

    Args:
        point: the message.
        camera: calibration of the camera, or None.
        frame_id: of the images.

    Raises:
        InputError: the point is behind the camera or in another frame, or it needs a calibration
            that is missing.

    """
    x, y, z = point.point.x, point.point.y, point.point.z
    if z == 0:
        return np.array([[x, y]], np.float32)
    if point.header.frame_id not in ("", frame_id):
        raise InputError(
            f"~/add_point is in frame {point.header.frame_id!r}. Publish it in the images' frame, "
            f"{frame_id!r}, or in pixels with z = 0."
        )
    if camera is None:
        raise InputError(
            "~/add_point has z > 0, and without camera_info it cannot be projected. Publish "
            "camera_info, or the point in pixels with z = 0."
        )
    # NaN fails this comparison.
    if not z > 0:
        raise InputError(
            f"~/add_point has z = {z:g}, behind the camera. Publish a point with z > 0, or in "
            "pixels with z = 0."
        )
    return camera.project(np.array([[x, y, z]]))
