"""The depth of a camera's images: which depth image belongs to which image, or why none does."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger

from vditrack.errors import InputError
from vditrack.ros_messages.depth_images import DepthImage
from vditrack.ros_messages.image_transport import DepthDecoder
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.calibration.camera_info import Size
from vditrack_ros.calibration.depth_buffer import DepthBuffer, StampedDepth
from vditrack_ros.counters import WINDOW, EventWindow
from vditrack_ros.diagnostics import WARN, Problem
from vditrack_ros.parameters.settings import Settings

_LOG_INTERVAL = 10.0
"""Minimum number of seconds between two log messages with the same cause."""
_GRACE = 1.0
"""Seconds without depth before it is said to be missing, and with depth before it is said to be
back."""


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


@dataclass(frozen=True)
class _Unexplained:
    """An image whose depth had not arrived in time; the next depth images tell why."""

    stamp: int
    """Nanoseconds."""
    tolerance: float
    """Nanoseconds."""
    published: float
    """Monotonic time in seconds."""
    wait: float
    """`depth_wait` in seconds."""


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
        """Why the last image without depth had none, if the reason is known."""
        self._logged: dict[Absence, float] = {}
        self._last_absence = -math.inf
        self._is_absence_logged = False
        """Whether a warning was logged and not that depth is back."""
        self._silent_since: float | None = None
        """Monotonic time in seconds: arrival of the last depth image; before the first one, of the
        first image that had none."""
        self._unexplained: _Unexplained | None = None

    def update(self, message: Any) -> None:  # noqa: ANN401
        """Store a depth image."""
        self._received += 1
        now = time.monotonic_ns()
        self._silent_since = now / NANOSECONDS_PER_SECOND
        self._buffer.add(message, now)
        self._explain_earlier_absence()

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
                f"the depth image had {depth.size[1]} x {depth.size[0]} pixels and the image "
                f"{size[1]} x {size[0]}. Publish depth that is aligned to the image.",
            )
            return None
        self._count_depth()
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
        text = f"In the last {WINDOW:g} s {absent} of {total} images had no depth: {reasons}."
        if self._buffer.is_silent(round(now * NANOSECONDS_PER_SECOND)):
            text = f"{self._topic}: {self._describe_silence(now)} {text}"
        else:
            text = f"{self._topic}: depth images arrive. {text} {self._explanation}".rstrip()
        return values, [(WARN, text)]

    def _decode_once(self, entry: StampedDepth) -> DepthImage:
        if self._decoded is None or self._decoded[0] is not entry:
            self._decoded = entry, self._decode(entry.message)
        return self._decoded[1]

    def _explain_absence(
        self, stamp: int, nearest: StampedDepth | None, settings: Settings
    ) -> tuple[Absence, str]:
        """Return why no depth image is near enough, and what to do."""
        now = time.monotonic()
        newest = self._buffer.newest
        if nearest is None or newest is None or self._buffer.is_silent(time.monotonic_ns()):
            self._unexplained = None
            return Absence.MISSING, self._describe_silence(now)
        tolerance = settings.depth_tolerance * NANOSECONDS_PER_SECOND
        if newest.stamp < stamp:
            if self._unexplained is None or stamp < self._unexplained.stamp:
                wait = settings.depth_wait
                self._unexplained = _Unexplained(stamp, tolerance, now, wait)
            return Absence.LATE, ""
        return Absence.STAMP, _describe_difference(abs(nearest.stamp - stamp), tolerance)

    def _explain_earlier_absence(self) -> None:
        """Tell from the newest depth image why an earlier image had none in time, and log it."""
        earlier, newest = self._unexplained, self._buffer.newest
        if earlier is None or newest is None:
            return
        nearest = self._buffer.find_nearest(earlier.stamp)
        assert nearest is not None
        difference = abs(nearest.stamp - earlier.stamp)
        if difference <= earlier.tolerance:
            delay = time.monotonic() - earlier.published
            self._explain(
                Absence.LATE,
                f"the depth of an image arrived {delay:.3g} s after its points were published. "
                f"Raise depth_wait, {earlier.wait:g} s.",
            )
        elif newest.stamp > earlier.stamp:
            self._explain(Absence.STAMP, _describe_difference(difference, earlier.tolerance))
        else:
            return
        self._unexplained = None

    def _describe_silence(self, now: float) -> str:
        """Return for how long no depth image has arrived, and what to do."""
        since = now if self._silent_since is None else self._silent_since
        return (
            f"no depth image has arrived for {now - since:.1f} s. Check the depth camera; for "
            "positions on the plane z = 1 in place of metres, configure the node with depth none."
        )

    def _count_absence(self, absence: Absence, explanation: str) -> None:
        now = time.monotonic()
        self._totals[absence] += 1
        self._last_absence = now
        if self._silent_since is None:
            self._silent_since = now
        is_brief = absence is Absence.MISSING and now - self._silent_since < _GRACE
        if is_brief and not self._received:
            # The first depth image may be on its way.
            return
        self._absences[absence].add(now, 1.0)
        if explanation and not is_brief:
            self._explain(absence, explanation)

    def _explain(self, absence: Absence, explanation: str) -> None:
        """Keep and log why an image had no depth."""
        now = time.monotonic()
        # Reports describe silence as it is at their time.
        is_missing = absence is Absence.MISSING
        self._explanation = "" if is_missing else f"The last reason: {explanation}"
        # rclpy would throttle all causes together.
        if now - self._logged.get(absence, -_LOG_INTERVAL) >= _LOG_INTERVAL:
            self._logged[absence] = now
            self._is_absence_logged = True
            self._logger.warning(
                f"Points of an image have no 3D position. {self._topic}: {explanation}"
            )

    def _count_depth(self) -> None:
        """Count an image with depth; log once that depth is back."""
        now = time.monotonic()
        self._placed.add(now, 1.0)
        if self._is_absence_logged and now - self._last_absence >= _GRACE:
            self._is_absence_logged = False
            self._logger.info(f"{self._topic}: images have depth again.")


def _describe_difference(difference: float, tolerance: float) -> str:
    """Return that the stamps of an image and of its nearest depth image differ by too much."""
    return (
        f"the nearest depth image differed by {difference / NANOSECONDS_PER_SECOND:.3g} s, and "
        f"depth_tolerance is {tolerance / NANOSECONDS_PER_SECOND:g} s."
    )
