"""The picture of what is followed, drawn only while somebody looks."""

from collections import deque

import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from vditrack.io.overlay import draw_masks
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.consumer import Shot, Site
from vditrack_ros.messages import TRAIL, overlay_image, rgb_image
from vditrack_ros.parameters import Settings

Trail = tuple[LiveUpdate, ...]
"""Updates of points up to an image, or none."""


class Overlay:
    """`~/overlay` of a camera."""

    def __init__(self, site: Site) -> None:
        self._node = site.node
        large = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = site.node.create_publisher(Image, f"{site.own}overlay", large)
        self._updates: deque[LiveUpdate] = deque(maxlen=TRAIL)

    @property
    def trail(self) -> Trail:
        """Where points were of late."""
        return tuple(self._updates)

    def reset(self) -> None:
        """Forget where points were."""
        self._updates.clear()

    def close(self) -> None:
        """Free the publisher."""
        self._node.destroy_publisher(self._publisher)

    def note(self, update: LiveUpdate, settings: Settings) -> None:
        """Note where points are; all is forgotten while nobody looks."""
        if self._wanted(settings):
            self._updates.append(update)
        else:
            self._updates.clear()

    def publish(
        self, shot: Shot, trail: Trail, settings: Settings, mask: NDArray[np.uint8] | None = None
    ) -> None:
        """Draw an image, if somebody looks.

        Args:
            shot: the image.
            trail: as it was when the points were followed into this image.
            settings: the node's.
            mask: uint8 [H, W] of indices of the objects in it.

        """
        if not self._wanted(settings):
            return
        frame = shot.frame
        if mask is not None:
            frame = next(draw_masks(frame[None], mask[None]))
        if trail:
            self._publisher.publish(overlay_image(shot.header, frame, trail))
        else:
            self._publisher.publish(rgb_image(shot.header, frame))

    def _wanted(self, settings: Settings) -> bool:
        return settings.overlay and self._publisher.get_subscription_count() > 0
