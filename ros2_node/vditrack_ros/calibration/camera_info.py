"""The calibration of a camera, from its camera_info."""

from typing import Any

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack_ros.diagnostics import OK, WARN, Problem

Size = tuple[int, int]
"""(height, width)."""

_LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log messages of the same kind."""
_PATIENCE = 5.0
"""Seconds of images without camera_info after which it is said to be missing."""


class CameraInfo:
    """Keeps the newest camera_info of a camera."""

    def __init__(self, logger: RcutilsLogger, topic: str) -> None:
        """Start without a calibration.

        Args:
            logger: receives warnings about messages that cannot be used.
            topic: of the messages, for warnings.

        """
        self._logger, self._topic = logger, topic
        self._info: Any = None
        self._camera: Camera | None = None
        self._problem = ""
        self._reported_missing = False

    def update(self, info: Any) -> None:  # noqa: ANN401
        """Store a sensor_msgs/CameraInfo."""
        if self._info is not None and _is_same_calibration(info, self._info):
            return
        self._info, self._camera, self._problem = info, None, ""
        try:
            self._camera = Camera.from_info(info)
        except InputError as error:
            self._problem = str(error)
        else:
            if self._camera is None:
                self._problem = "camera_info has a K of zeros: the camera is not calibrated."
        if self._problem:
            self._logger.warning(
                f"{self._topic}: {self._problem} Points get no 3D position.",
                throttle_duration_sec=_LOG_INTERVAL,
            )

    def camera_for(self, size: Size) -> Camera | None:
        """Return the calibrated camera for images of this size; None if there is none.

        Args:
            size: (height, width) of the images.

        """
        if self._camera is None:
            return None
        calibrated = self._camera.size
        if calibrated not in (None, size):
            self._problem = (
                f"camera_info is for images of {calibrated[1]} x {calibrated[0]} pixels, but the "
                f"images have {size[1]} x {size[0]}. Publish the camera_info that belongs to the "
                "images."
            )
            self._logger.warning(
                f"{self._topic}: {self._problem} Points get no 3D position.",
                throttle_duration_sec=_LOG_INTERVAL,
            )
            return None
        self._problem = ""
        return self._camera

    def describe(
        self, seconds: float, publishers: int, *, needed: bool
    ) -> tuple[dict[str, str], list[Problem]]:
        """Return the values and problems for /diagnostics; log once that camera_info is missing.

        Args:
            seconds: since the first image.
            publishers: number of publishers of the topic.
            needed: whether a subscriber or a parameter asks for what needs a calibration.

        """
        if self._info is not None:
            state = "cannot be used" if self._problem else "received"
            problems = [(WARN, f"{self._topic}: {self._problem}")] if self._problem else []
            return {"camera_info": state}, problems
        values = {"camera_info": "none received"}
        if seconds < _PATIENCE:
            return values, []
        problem = (
            f"No camera_info has arrived on {self._topic}, which has {publishers} publishers: "
            "points get no 3D position, and ~/features is empty."
        )
        if not self._reported_missing:
            self._reported_missing = True
            self._logger.warning(problem)
        return values, [(WARN if needed or publishers else OK, problem)]


def _is_same_calibration(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Return whether two CameraInfo messages are equal except for their headers."""
    names = ("height", "width", "distortion_model", "binning_x", "binning_y", "roi")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and np.array_equal(one.d, other.d, equal_nan=True)
        and np.array_equal(one.k, other.k, equal_nan=True)
    )
