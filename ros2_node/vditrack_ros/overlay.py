"""Publication of `~/overlay`; nothing is drawn while the topic has no subscriber."""

from collections import deque

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from vditrack.arrays import Mask
from vditrack.io.overlay import draw_masks
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.consumer import CameraContext, CameraImage
from vditrack_ros.messages import TRAIL_LENGTH, build_overlay_image, build_rgb_image
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.transport.topics import create_publisher

Trail = tuple[LiveUpdate, ...]
"""Updates of the points up to and including an image's; may be empty."""


class OverlayPublisher:
    """Publishes the images of a camera with points, trails and masks drawn on them."""

    def __init__(self, context: CameraContext) -> None:
        """Create the topic.

        Args:
            context: of the camera.

        """
        self._node = context.node
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = create_publisher(
            context.node, Image, f"{context.output_prefix}overlay", qos
        )
        self._updates: deque[LiveUpdate] = deque(maxlen=TRAIL_LENGTH)

    @property
    def trail(self) -> Trail:
        """The latest updates of the points, at most `TRAIL_LENGTH`."""
        return tuple(self._updates)

    def reset(self) -> None:
        """Discard the trails."""
        self._updates.clear()

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

    def add_points(self, update: LiveUpdate, settings: Settings) -> None:
        """Append an update to the trails; without a subscriber the trails are discarded.

        Args:
            update: the points in the newest image.
            settings: the node's.

        """
        if self._is_wanted(settings):
            self._updates.append(update)
        else:
            self._updates.clear()

    def publish(
        self, image: CameraImage, trail: Trail, settings: Settings, mask: Mask | None = None
    ) -> None:
        """Draw and publish an image, if the topic has a subscriber.

        Args:
            image: the image.
            trail: the trail at the time when the points were tracked into this image.
            settings: the node's.
            mask: uint8 [H, W] object indices in this image; None to draw no objects.

        """
        if not self._is_wanted(settings):
            return
        frame = image.frame
        if mask is not None:
            frame = next(draw_masks(frame[None], mask[None]))
        if trail:
            self._publisher.publish(build_overlay_image(image.header, frame, trail))
        else:
            self._publisher.publish(build_rgb_image(image.header, frame))

    def _is_wanted(self, settings: Settings) -> bool:
        return settings.overlay and self._publisher.get_subscription_count() > 0
