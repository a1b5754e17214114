"""Publication of masks, of the boxes around objects, and of the overlay."""

import time

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from vditrack.streams.mask_stream import MaskUpdate
from vditrack_ros.consumer import CameraContext
from vditrack_ros.counters import ImageCounters, Timing
from vditrack_ros.masks.jobs import QueuedImage
from vditrack_ros.messages import HAS_VISION_MSGS, build_detections, build_mask_image
from vditrack_ros.overlay import OverlayPublisher
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.points.object_ids import PointObjectIds
from vditrack_ros.transport.topics import create_publisher

if HAS_VISION_MSGS:
    from vision_msgs.msg import Detection2DArray


class MaskPublisher:
    """Publishes what is known of the objects in an image."""

    def __init__(
        self,
        context: CameraContext,
        overlay: OverlayPublisher,
        object_ids: PointObjectIds,
        counters: ImageCounters,
    ) -> None:
        """Create the topics.

        Args:
            context: of the camera.
            overlay: drawn with the trails of each image.
            object_ids: updated from each mask.
            counters: count each image that is published.

        """
        self._node, self._counters = context.node, counters
        self._overlay, self._object_ids = overlay, object_ids
        self._stamp = 0
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._masks = create_publisher(context.node, Image, f"{context.output_prefix}masks", qos)
        self._detections = None
        if HAS_VISION_MSGS:
            self._detections = create_publisher(
                context.node, Detection2DArray, f"{context.output_prefix}detections", qos
            )

    def close(self) -> None:
        """Destroy the topics."""
        self._node.destroy_publisher(self._masks)
        if self._detections is not None:
            self._node.destroy_publisher(self._detections)

    def reset(self) -> None:
        """Take any image as newer than those before."""
        self._stamp = 0

    def publish(
        self, queued: QueuedImage, update: MaskUpdate, settings: Settings, seconds: float
    ) -> None:
        """Publish the objects in an image, unless those in a later one were published before.

        Args:
            queued: the image.
            update: the objects.
            settings: the node's.
            seconds: for which the image was worked on.

        """
        image, start = queued.image, time.perf_counter()
        if image.stamp < self._stamp:
            return
        if queued.points is not None:
            self._object_ids.update_from_mask(queued.points, update.mask)
        if self._masks.get_subscription_count() > 0:
            self._masks.publish(build_mask_image(image.header, update.mask))
        if self._detections is not None and self._detections.get_subscription_count() > 0:
            self._detections.publish(build_detections(image.header, update))
        self._overlay.publish(image, queued.trail, settings, update.mask)
        # An image is published again after a late request; its latency is counted once.
        if image.stamp != self._stamp:
            published = time.perf_counter() - start
            timing = Timing(image.latency(), image.decode_seconds, seconds, published)
            self._counters.count_result(time.monotonic(), timing)
            self._stamp = image.stamp
