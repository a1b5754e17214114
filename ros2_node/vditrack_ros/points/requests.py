"""Requests of points, converted to pixels of the image. Needs no ROS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.point_fields import read_point_fields


@dataclass(frozen=True)
class RequestedPixels:
    """A request of the service `~/add_points`."""

    stamp: int
    """Stamp of the image in nanoseconds; 0 for the newest image."""
    pixels: Floats
    """Pixels (x, y) [N, 2] in the image."""


def read_requested_pixels(fields: Mapping[str, Any]) -> RequestedPixels:
    """Return a request of the values of its fields.

    Args:
        fields: `stamp` in nanoseconds, `x` and `y` in pixels; a field that is left out is empty.

    Raises:
        InputError: there is no point, or x and y have different lengths.

    """
    x, y = (np.asarray(fields.get(name, ()), np.float32).ravel() for name in "xy")
    if len(x) != len(y) or not len(x):
        raise InputError(
            f"~/add_points has {len(x)} values of x and {len(y)} of y. Give both of each point."
        )
    return RequestedPixels(int(fields.get("stamp", 0)), np.stack([x, y], axis=1))


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


def read_clicked_pixel(
    point: Any,  # noqa: ANN401
    camera: Camera | None,
    frame_id: str,
    project: Callable[[Any, Camera], Floats],
) -> Floats:
    """Return the pixel (x, y) float32 [1, 2] of a geometry_msgs/PointStamped.

    In the camera's optical frame, or without a frame, x and y are pixels if z is 0; if z is
    positive, the point is projected into the image. In any other frame, it is a point in space.

    Args:
        point: the message.
        camera: calibration of the camera, or None.
        frame_id: of the images.
        project: returns the pixel of a point in another frame.

    Raises:
        InputError: the point is behind the camera, or it needs a calibration or a transform that is
            missing.

    """
    x, y, z = point.point.x, point.point.y, point.point.z
    is_elsewhere = point.header.frame_id not in ("", frame_id)
    if z == 0 and not is_elsewhere:
        return np.array([[x, y]], np.float32)
    if camera is None:
        raise InputError(
            "~/add_point is a point in space, and without camera_info it cannot be projected. "
            "Publish camera_info, or the point in pixels with z = 0 and the images' frame."
        )
    if is_elsewhere:
        return project(point, camera)
    # NaN fails this comparison.
    if not z > 0:
        raise InputError(
            f"~/add_point has z = {z:g}, behind the camera. Publish a point with z > 0, or in "
            "pixels with z = 0."
        )
    return camera.project(np.array([[x, y, z]]))
