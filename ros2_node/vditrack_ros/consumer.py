"""What follows a camera's images: points, masks of objects, or both side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from vditrack_ros.counters import Counts
from vditrack_ros.diagnostics import Report, State
from vditrack_ros.parameters import Settings

AGAIN = 5.0
"""Seconds between log messages of the same kind."""
SETTLED = 3.0
"""Seconds after which rates are worth telling."""


@dataclass(frozen=True)
class Site:
    """Where a camera is in ROS."""

    node: LifecycleNode
    """Has the topics."""
    inputs: str
    """What names of the camera's topics begin with."""
    own: str
    """What names of the node's topics for this camera begin with."""
    logger: RcutilsLogger


@dataclass(frozen=True)
class Shot:
    """An image that was taken."""

    header: Header
    """As it came."""
    frame: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    stamp: int
    """Nanoseconds, of the header, or of its arrival where the header has none."""
    latency: Callable[[], float]
    """Seconds from its stamp until now."""
    decoding: float
    """Seconds that it took."""


class Follower(Protocol):
    """Follows something through a camera's images; all of it runs in the node's own thread."""

    counts: Counts
    """What became of the images."""
    settings: Settings
    """May be replaced at any time."""

    def take(self, shot: Shot) -> None:
        """Follow into the next image."""

    def fail(self, error: Exception) -> None:
        """Tell that an image could not be followed into, and start over."""

    def start_over(self) -> None:
        """Forget everything that depends on images before the next one."""

    def forget(self) -> str:
        """Start over because somebody asked for it; tell what is forgotten."""

    def report(self, state: State, now: float) -> Report:
        """Tell how well the camera is kept up with."""

    def close(self) -> None:
        """Free all topics."""
