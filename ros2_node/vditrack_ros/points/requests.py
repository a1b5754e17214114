"""Points that others ask for, as pixels of the image."""

from typing import Any

import numpy as np

from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera

_KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""NumPy's kind of each datatype of sensor_msgs/PointField."""


def pixels_of_cloud(cloud: Any) -> Floats:  # noqa: ANN401
    """Pixels [N, 2] (x, y) of a sensor_msgs/PointCloud2: of its fields u and v, or x and y.

    Raises:
        InputError: it has neither, or its data does not fit what it says of them.

    """
    fields = {field.name: field for field in cloud.fields}
    names = next((pair for pair in (("u", "v"), ("x", "y")) if fields.keys() >= {*pair}), None)
    if names is None:
        raise InputError(
            f"~/add_points has the fields {', '.join(fields) or 'none'}; give u and v, or x and y, "
            "in pixels."
        )
    order = ">" if cloud.is_bigendian else "<"
    try:
        row = np.dtype(
            {
                "names": names,
                "formats": [order + _KINDS[fields[name].datatype] for name in names],
                "offsets": [fields[name].offset for name in names],
                "itemsize": cloud.point_step,
            }
        )
        shape, strides = (cloud.height, cloud.width), (cloud.row_step, cloud.point_step)
        points = np.ndarray(shape, row, memoryview(cloud.data), strides=strides)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"~/add_points does not fit its own description: {error}.") from error
    return np.stack([points[name].ravel() for name in names], axis=1).astype(np.float32)


def pixel_of_click(clicked: Any, camera: Camera | None, frame_id: str) -> Floats:  # noqa: ANN401
    """Pixel [1, 2] (x, y) of a geometry_msgs/PointStamped.

    Where z is 0, x and y are pixels. Where it is more, the point is in the camera's optical frame
    and is projected into the image.

    Args:
        clicked: the message.
        camera: the calibrated camera, if it is known.
        frame_id: of the images.

    Raises:
        InputError: the point is behind the camera or in another frame, or the camera is needed and
            not known.

    """
    x, y, z = clicked.point.x, clicked.point.y, clicked.point.z
    if z == 0:
        return np.array([[x, y]], np.float32)
    if clicked.header.frame_id not in ("", frame_id):
        raise InputError(
            f"~/add_point is in frame {clicked.header.frame_id!r}; give it in the images', "
            f"{frame_id!r}, or in pixels with z = 0."
        )
    if camera is None:
        raise InputError(
            "~/add_point has z > 0, and no camera_info says where that is in the image. Publish "
            "camera_info, or give pixels with z = 0."
        )
    # Written so that NaN fails too.
    if not z > 0:
        raise InputError(f"~/add_point has z = {z:g}, which is behind the camera.")
    return camera.pixels(np.array([[x, y, z]]))
