"""The interface between a camera and what processes its images: points or masks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from vditrack.arrays import Frame
from vditrack_ros.counters import ImageCounters
from vditrack_ros.diagnostics import CameraState, Report
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.services import Answer, RemoveRequest
from vditrack_ros.transforms import FrameTransforms

LOG_INTERVAL = 5.0
"""Minimum number of seconds between two log messages of the same kind."""
RATE_SETTLING_TIME = 3.0
"""Seconds of images after which measured rates are logged."""


@dataclass(frozen=True)
class CameraContext:
    """What a consumer needs to create topics for a camera."""

    node: LifecycleNode
    """The node that owns the topics."""
    input_prefix: str
    """Prefix of the camera's topics."""
    output_prefix: str
    """Prefix of the node's topics and services for this camera."""
    logger: RcutilsLogger
    transforms: FrameTransforms
    """Shared by all cameras."""
    first_id: int = 0
    """Id of the first point."""


@dataclass(frozen=True)
class CameraImage:
    """A decoded image of a camera topic."""

    header: Header
    """The header of the message, unchanged."""
    frame: Frame
    """The pixels, uint8 [H, W, 3] RGB."""
    stamp: int
    """Nanoseconds: the header's stamp, or the time of arrival if the camera gives no stamps."""
    latency: Callable[[], float]
    """Returns the seconds from the stamp until now."""
    decode_seconds: float
    """Time that decoding took."""


class Consumer(Protocol):
    """Processes the images of a camera. All methods run in the node's executor thread."""

    counters: ImageCounters
    """Counters of received and dropped images."""
    settings: Settings
    """The node's settings; may be replaced at any time."""

    @property
    def next_id(self) -> int:
        """The id of the next point; 0 if points are not tracked."""

    def process(self, image: CameraImage) -> None:
        """Track into the next image."""

    def handle_failure(self, error: Exception) -> None:
        """Report that processing an image failed, and reset."""

    def reset(self) -> None:
        """Discard everything that depends on the images so far."""

    def restart(self, *, after_pause: bool) -> None:
        """Start over where images do not continue those before, with what can be found again.

        Args:
            after_pause: whether the camera paused; otherwise the clock of the images was set.

        """

    def reset_on_request(self) -> str:
        """Reset for a call of `~/reset`; return what was discarded, such as "40 points"."""

    def remove(self, request: RemoveRequest) -> Answer | None:
        """Remove a point or an object; return None if its kind is another consumer's."""

    def report(self, state: CameraState, now: float) -> Report:
        """Return the diagnostics of this consumer.

        Args:
            state: of the camera.
            now: monotonic time in seconds.

        """

    def close(self) -> None:
        """Destroy all topics."""
