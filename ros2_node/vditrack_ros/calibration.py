"""What is known of a camera beside its images: its calibration and its depth."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.impl.rcutils_logger import RcutilsLogger

from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.images import decode_depth
from vditrack_ros.stamps import SECOND, nanoseconds

Size = tuple[int, int]

_AGAIN = 10.0
"""Seconds between warnings of the same kind."""


class Sight:
    """The newest camera_info and the newest depth; each is read when it is first needed."""

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._info: Any = None
        self._camera: Camera | None = None
        self._depth_message: Any = None
        self._depth: NDArray[np.float32] | None = None

    def hear_info(self, info: Any) -> None:  # noqa: ANN401
        """Take a sensor_msgs/CameraInfo."""
        if self._info is not None and _same_camera(info, self._info):
            return
        self._info, self._camera = info, None
        try:
            self._camera = Camera.from_info(info)
        except InputError as error:
            self._logger.warning(str(error), throttle_duration_sec=_AGAIN)

    def hear_depth(self, message: Any) -> None:  # noqa: ANN401
        """Take a sensor_msgs/Image of depth."""
        self._depth_message, self._depth = message, None

    def camera(self, size: Size) -> Camera | None:
        """Give the calibrated camera for images of (height, width); None where there is none."""
        if self._camera is None:
            return None
        told = self._camera.size
        if told not in (None, size):
            self._logger.warning(
                f"camera_info is for images of {told[1]} x {told[0]} pixels, and they have "
                f"{size[1]} x {size[0]}; points get no place in space. Publish the camera_info "
                "that belongs to the images.",
                throttle_duration_sec=_AGAIN,
            )
            return None
        return self._camera

    def depth(self, stamp: Any, size: Size, tolerance: float) -> NDArray[np.float32] | None:  # noqa: ANN401
        """Give the depth [H, W] in metres of an image with that stamp; None where there is none."""
        message = self._depth_message
        if message is None or _apart(message.header.stamp, stamp) > tolerance * SECOND:
            return None
        if (message.height, message.width) != size:
            self._logger.warning(
                f"depth has {message.width} x {message.height} pixels and the image {size[1]} x "
                f"{size[0]}; it is not used. Publish depth that is aligned to the image.",
                throttle_duration_sec=_AGAIN,
            )
            return None
        if self._depth is None:
            try:
                self._depth = decode_depth(message)
            except InputError as error:
                self._depth_message = None
                self._logger.warning(str(error), throttle_duration_sec=_AGAIN)
        return self._depth


def _apart(one: Any, other: Any) -> int:  # noqa: ANN401
    return abs(nanoseconds(one) - nanoseconds(other))


def _same_camera(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Whether two messages say the same, but for their stamps."""
    names = ("height", "width", "distortion_model", "binning_x", "binning_y", "roi")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and np.array_equal(one.d, other.d)
        and np.array_equal(one.k, other.k)
    )
