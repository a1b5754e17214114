"""The depth of a camera's images: which depth image belongs to which image, or why none does."""

import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger

from vditrack.errors import InputError
from vditrack.ros_messages.depth_images import DepthImage
from vditrack.ros_messages.image_transport import DepthDecoder
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.calibration.camera_info import Size
from vditrack_ros.calibration.depth_buffer import DepthBuffer, StampedDepth
from vditrack_ros.counters import EventWindow
from vditrack_ros.diagnostics import WARN, Problem
from vditrack_ros.parameters.settings import Settings

_LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log messages with the same cause."""


class Absence(Enum):
    """Why an image has no depth."""

    MISSING = "missing"
    """No depth image arrives."""
    LATE = "late"
    """Depth images arrive, and the image's had not when its points were published."""
    STAMP = "stamp"
    """No depth image has a stamp within `depth_tolerance`."""
    SIZE = "size"
    """The depth image has another size than the image."""
    MALFORMED = "malformed"
    """The depth image cannot be decoded."""


class DepthSource:
    """Receives the depth images of a camera, and counts the images that have none."""

    def __init__(
        self,
        logger: RcutilsLogger,
        topic: str,
        decode: DepthDecoder,
        count_publishers: Callable[[], int],
    ) -> None:
        """Start without depth.

        Args:
            logger: receives warnings about images without depth.
            topic: of the depth images, for warnings.
            decode: of the topic's transport.
            count_publishers: returns the number of publishers of the topic.

        """
        self._logger, self._topic, self._decode = logger, topic, decode
        self._count_publishers = count_publishers
        self._buffer = DepthBuffer()
        self._decoded: tuple[StampedDepth, DepthImage] | None = None
        self._received = 0
        self._placed = EventWindow[float]()
        self._absences: dict[Absence, EventWindow[float]] = {one: EventWindow() for one in Absence}
        self._totals = dict.fromkeys(Absence, 0)
        self._explanation = ""
        self._logged: dict[Absence, float] = {}

    def update(self, message: Any) -> None:  # noqa: ANN401
        """Store a depth image."""
        self._received += 1
        self._buffer.add(message, time.monotonic_ns())

    def is_expected(self, settings: Settings) -> bool:
        """Return whether images must have depth: a parameter says so, or depth was there."""
        if settings.depth == "auto":
            return bool(self._received) or self._count_publishers() > 0
        return settings.depth == "required"

    def is_awaited(self, stamp: int, settings: Settings) -> bool:
        """Return whether the depth of an image is likely to arrive soon.

        Args:
            stamp: of the image, in nanoseconds.
            settings: the node's.

        """
        now = time.monotonic_ns()
        return self._buffer.is_nearer_expected(stamp, settings.depth_tolerance, now)

    def find(self, stamp: int, size: Size, settings: Settings) -> DepthImage | None:
        """Return the depth image that belongs to an image; None if there is none.

        Images without depth are counted by the reason, which is logged.

        Args:
            stamp: of the image, in nanoseconds.
            size: (height, width) of the image.
            settings: the node's.

        """
        nearest = self._buffer.find_nearest(stamp)
        tolerance = settings.depth_tolerance * NANOSECONDS_PER_SECOND
        if nearest is None or abs(nearest.stamp - stamp) > tolerance:
            self._count_absence(*self._explain_absence(stamp, nearest, settings))
            return None
        try:
            depth = self._decode_once(nearest)
        except InputError as error:
            self._count_absence(Absence.MALFORMED, str(error))
            return None
        if depth.size != size:
            self._count_absence(
                Absence.SIZE,
                f"the depth image has {depth.size[1]} x {depth.size[0]} pixels and the image "
                f"{size[1]} x {size[0]}. Publish depth that is aligned to the image.",
            )
            return None
        self._placed.add(time.monotonic(), 1.0)
        return depth

    def describe(self, now: float) -> tuple[dict[str, str], list[Problem]]:
        """Return the values and problems for /diagnostics.

        Args:
            now: monotonic time in seconds.

        """
        values = {"depth images received": str(self._received)} | {
            f"images without depth, {absence.value}": str(count)
            for absence, count in self._totals.items()
        }
        counts = {one: len(window.values(now)) for one, window in self._absences.items()}
        absent = sum(counts.values())
        if not absent:
            return values, []
        total = absent + len(self._placed.values(now))
        reasons = ", ".join(f"{count} {one.value}" for one, count in counts.items() if count)
        text = f"{absent} of {total} images have no depth: {reasons}. {self._explanation}"
        return values, [(WARN, text)]

    def _decode_once(self, entry: StampedDepth) -> DepthImage:
        if self._decoded is None or self._decoded[0] is not entry:
            self._decoded = entry, self._decode(entry.message)
        return self._decoded[1]

    def _explain_absence(
        self, stamp: int, nearest: StampedDepth | None, settings: Settings
    ) -> tuple[Absence, str]:
        """Return why no depth image is near enough, and what to do."""
        newest = self._buffer.newest
        if nearest is None or newest is None or self._buffer.is_silent(time.monotonic_ns()):
            return Absence.MISSING, (
                "no depth image arrives. Check the depth camera; for positions on the plane z = 1 "
                "in place of metres, set the parameter depth to none."
            )
        if newest.stamp < stamp:
            behind = (stamp - newest.stamp) / NANOSECONDS_PER_SECOND
            return Absence.LATE, (
                f"the newest depth image is {behind:.3g} s older than the image. If depth arrives "
                f"late, raise depth_wait, {settings.depth_wait:g} s."
            )
        difference = abs(nearest.stamp - stamp) / NANOSECONDS_PER_SECOND
        return Absence.STAMP, (
            f"the nearest depth image differs by {difference:.3g} s, and depth_tolerance is "
            f"{settings.depth_tolerance:g} s."
        )

    def _count_absence(self, absence: Absence, explanation: str) -> None:
        now = time.monotonic()
        self._absences[absence].add(now, 1.0)
        self._totals[absence] += 1
        self._explanation = f"{self._topic}: {explanation}"
        # rclpy would throttle all causes together.
        if now - self._logged.get(absence, -_LOG_INTERVAL) >= _LOG_INTERVAL:
            self._logged[absence] = now
            self._logger.warning(f"Points of an image have no 3D position. {self._explanation}")
