"""Positions in the frame that the parameter `target_frame` names."""

import time

from rclpy.impl.rcutils_logger import RcutilsLogger
from std_msgs.msg import Header

from vditrack.errors import InputError
from vditrack.ros_messages.positions import Positions, Scale
from vditrack.ros_messages.stamps import to_nanoseconds
from vditrack_ros.counters import WINDOW, EventWindow
from vditrack_ros.diagnostics import WARN, Problem
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.transforms import FrameTransforms, MissingTransformError, RigidTransform

_LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log messages of the same kind."""
_MAX_DELAY = 500_000_000
"""Nanoseconds by which the newest transform may be older than an image that waits for the next."""


class TargetFrame:
    """Transforms positions, and counts the images for which there is no transform."""

    def __init__(self, logger: RcutilsLogger, transforms: FrameTransforms) -> None:
        """Start without a transform.

        Args:
            logger: receives warnings about images without positions.
            transforms: looks transforms up.

        """
        self._logger, self._transforms = logger, transforms
        self._total = 0
        self._absences = EventWindow[float]()
        self._explanation = ""

    def is_awaited(self, header: Header, settings: Settings) -> bool:
        """Return whether the transform of an image is likely to arrive soon.

        It is if the newest transform is only a little older than the image.

        Args:
            header: of the image.
            settings: the node's.

        """
        if not settings.target_frame:
            return False
        newest = self._transforms.find_newest_stamp(settings.target_frame, header.frame_id)
        if newest is None:
            return False
        missing = to_nanoseconds(header.stamp) - newest
        return 0 < missing < _MAX_DELAY and not self._is_known(header, settings)

    def transform(self, positions: Positions, header: Header, settings: Settings) -> Positions:
        """Return positions of an image in the target frame; without one as they are.

        A position without a distance is on a ray, and has no place in another frame: it is unknown.

        Args:
            positions: in the camera's optical frame.
            header: of the image.
            settings: the node's.

        """
        if not settings.target_frame:
            return positions
        try:
            transform = self._look_up(header, settings)
        except InputError as error:
            self._count_absence(str(error))
            return Positions.unknown(len(positions.xyz))
        metric = positions.scale == Scale.METRES
        if (positions.scale == Scale.PLANE).any():
            self._logger.warning(
                f"Points have no position in target_frame, {settings.target_frame!r}: without "
                "depth their distance is unknown.",
                throttle_duration_sec=_LOG_INTERVAL,
            )
        positions.xyz[~metric] = float("nan")
        return Positions.with_scale(transform.apply(positions.xyz), Scale.METRES)

    def describe(self, now: float) -> tuple[dict[str, str], list[Problem]]:
        """Return the values and problems for /diagnostics.

        Args:
            now: monotonic time in seconds.

        """
        values = {"images without a transform": str(self._total)}
        count = len(self._absences.values(now))
        text = f"In the last {WINDOW:g} s {count} images had no transform: {self._explanation}"
        return values, [(WARN, text)] if count else []

    def _is_known(self, header: Header, settings: Settings) -> bool:
        # The newest transform between frames that do not move has the stamp at which it was sent.
        try:
            self._look_up(header, settings)
        except MissingTransformError:
            return False
        return True

    def _look_up(self, header: Header, settings: Settings) -> RigidTransform:
        return self._transforms.look_up(settings.target_frame, header.frame_id, header.stamp)

    def _count_absence(self, explanation: str) -> None:
        self._total += 1
        self._absences.add(time.monotonic(), 1.0)
        self._explanation = explanation
        self._logger.warning(
            f"Points of an image have no 3D position: {explanation}",
            throttle_duration_sec=_LOG_INTERVAL,
        )
