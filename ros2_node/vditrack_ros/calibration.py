"""The newest calibration and depth image of a camera."""

from typing import Any

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.images import decode_depth
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds

Size = tuple[int, int]
"""(height, width)."""

_LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log messages of the same kind."""


class Calibration:
    """Keeps the newest camera_info and depth message; each is decoded when it is first used."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Start without calibration and depth.

        Args:
            logger: receives warnings about messages that cannot be used.

        """
        self._logger = logger
        self._info: Any = None
        self._camera: Camera | None = None
        self._depth_message: Any = None
        self._depth: Floats | None = None

    def update_camera_info(self, info: Any) -> None:  # noqa: ANN401
        """Store a sensor_msgs/CameraInfo."""
        if self._info is not None and _is_same_calibration(info, self._info):
            return
        self._info, self._camera = info, None
        try:
            self._camera = Camera.from_info(info)
        except InputError as error:
            self._logger.warning(str(error), throttle_duration_sec=_LOG_INTERVAL)

    def update_depth(self, message: Any) -> None:  # noqa: ANN401
        """Store a sensor_msgs/Image with depth."""
        self._depth_message, self._depth = message, None

    def camera_for(self, size: Size) -> Camera | None:
        """Return the calibrated camera for images of this size; None if there is none.

        Args:
            size: (height, width) of the images.

        """
        if self._camera is None:
            return None
        calibrated = self._camera.size
        if calibrated not in (None, size):
            self._logger.warning(
                f"camera_info is for images of {calibrated[1]} x {calibrated[0]} pixels, but the "
                f"images have {size[1]} x {size[0]}; points get no 3D position. Publish the "
                "camera_info that belongs to the images.",
                throttle_duration_sec=_LOG_INTERVAL,
            )
            return None
        return self._camera

    def depth_for(self, stamp: Any, size: Size, tolerance: float) -> Floats | None:  # noqa: ANN401
        """Return the depth [H, W] in metres that belongs to an image; None if there is none.

        Args:
            stamp: builtin_interfaces/Time of the image.
            size: (height, width) of the image.
            tolerance: maximum difference of the two stamps, in seconds.

        """
        message = self._depth_message
        if message is None:
            return None
        difference = abs(to_nanoseconds(message.header.stamp) - to_nanoseconds(stamp))
        if difference > tolerance * NANOSECONDS_PER_SECOND:
            return None
        if (message.height, message.width) != size:
            self._logger.warning(
                f"The depth image has {message.width} x {message.height} pixels and the image "
                f"{size[1]} x {size[0]}; depth is not used. Publish depth that is aligned to the "
                "image.",
                throttle_duration_sec=_LOG_INTERVAL,
            )
            return None
        if self._depth is None:
            try:
                self._depth = decode_depth(message)
            except InputError as error:
                self._depth_message = None
                self._logger.warning(str(error), throttle_duration_sec=_LOG_INTERVAL)
        return self._depth


def _is_same_calibration(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Return whether two CameraInfo messages are equal except for their headers."""
    names = ("height", "width", "distortion_model", "binning_x", "binning_y", "roi")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and np.array_equal(one.d, other.d)
        and np.array_equal(one.k, other.k)
    )
