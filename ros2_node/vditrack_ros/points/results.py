"""The results of images, which may wait for depth or a transform before they are published."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header

from vditrack.arrays import Bools
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.calibration.camera_info import Size
from vditrack_ros.counters import Timing

_POLL_PERIOD = 0.005
"""Seconds between two looks at the time while a result waits."""


@dataclass(frozen=True)
class PointResult:
    """The points that were tracked into an image."""

    header: Header
    """Of the image."""
    stamp: int
    """Of the image, in nanoseconds."""
    size: Size
    """(height, width) of the image."""
    update: LiveUpdate
    objects: NDArray[np.uint8]
    """[N] index of the object of each point, 0 for none."""
    requested: Bools
    """[N] which points were asked for."""
    measure: Callable[[float], Timing]
    """Returns the durations, given the seconds that publishing took."""


class ResultQueue:
    """Publishes results in the order of their images, at the latest when their time is up."""

    def __init__(
        self,
        node: Node,
        publish: Callable[[PointResult], None],
        is_awaited: Callable[[PointResult, float], bool],
    ) -> None:
        """Start without results.

        Args:
            node: owns the timer.
            publish: publishes a result.
            is_awaited: returns whether a result waits on, after a number of seconds.

        """
        self._node, self._publish, self._is_awaited = node, publish, is_awaited
        self._waiting: deque[tuple[float, PointResult]] = deque()
        self._timer = node.create_timer(
            _POLL_PERIOD, self.release, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._timer.cancel()

    def close(self) -> None:
        """Publish what waits, and destroy the timer."""
        self.release_all()
        self._node.destroy_timer(self._timer)

    def add(self, result: PointResult) -> None:
        """Publish a result, now or when what it waits for has arrived."""
        self._waiting.append((time.monotonic(), result))
        self.release()

    def release(self) -> None:
        """Publish the results that wait no longer, up to the first one that does."""
        while self._waiting:
            since, result = self._waiting[0]
            if self._is_awaited(result, time.monotonic() - since):
                if self._timer.is_canceled():
                    self._timer.reset()
                return
            self._waiting.popleft()
            self._publish(result)
        self._timer.cancel()

    def release_all(self) -> None:
        """Publish all results as they are."""
        while self._waiting:
            self._publish(self._waiting.popleft()[1])
        self._timer.cancel()
