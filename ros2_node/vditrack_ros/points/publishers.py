"""Publishers of the points of a camera. A message is built only if its topic has a subscriber."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from vditrack.arrays import Floats
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.positions import Positions
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros import messages
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.transport.topics import create_publisher

if messages.HAS_FOXGLOVE:
    from foxglove_msgs.msg import ImageAnnotations

_QUEUE_DEPTH = 5
"""Messages stored for a subscriber that is busy; they are small."""


class PointPublishers:
    """The publishers of `~/tracks`, `~/features`, `~/markers` and `~/annotations`."""

    def __init__(self, node: Node, prefix: str) -> None:
        """Create the topics.

        Args:
            node: owns the topics.
            prefix: of the topics' names.

        """
        self._node = node
        # A reliable publisher connects to reliable and to best-effort subscribers.
        qos = QoSProfile(depth=_QUEUE_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        types: dict[str, Any] = {
            "tracks": PointCloud2,
            "features": PointCloud,
            "markers": MarkerArray,
        }
        if messages.HAS_FOXGLOVE:
            types["annotations"] = ImageAnnotations
        self._publishers = {
            name: create_publisher(node, message_type, f"{prefix}{name}", qos)
            for name, message_type in types.items()
        }
        self.reset()

    def reset(self) -> None:
        """Discard the previous update, from which velocities are computed."""
        self._previous: tuple[LiveUpdate, Floats] | None = None

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    @property
    def needs_calibration(self) -> bool:
        """Whether a topic has subscribers that is empty without a calibration."""
        return self._is_wanted("features") or self._is_wanted("markers")

    @property
    def needs_positions(self) -> bool:
        """Whether a topic with positions in space has subscribers."""
        return self._is_wanted("tracks") or self._is_wanted("markers")

    def publish_pixels(
        self, header: Header, update: LiveUpdate, camera: Camera | None, settings: Settings
    ) -> None:
        """Publish an update on the topics without positions in space that have subscribers.

        Args:
            header: of the image.
            update: the points in the image.
            camera: calibration of the camera, or None.
            settings: the node's.

        """
        if self._is_wanted("features"):
            self._send_features(header, update, camera, settings)
        if self._is_wanted("annotations"):
            self._send("annotations", messages.build_annotations(header, update))

    def publish_positions(
        self,
        header: Header,
        update: LiveUpdate,
        objects: NDArray[np.uint8],
        positions: Positions,
    ) -> None:
        """Publish an update on the topics with positions in space that have subscribers.

        Args:
            header: of the image.
            update: the points in the image.
            objects: uint8 [N] index of the object of each point, 0 for none.
            positions: of the points.

        """
        if self._is_wanted("tracks"):
            self._send("tracks", messages.build_track_cloud(header, update, objects, positions))
        if self._is_wanted("markers"):
            self._send("markers", messages.build_markers(header, update, positions.xyz))

    def _is_wanted(self, name: str) -> bool:
        publisher = self._publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _send(self, name: str, message: Any) -> None:  # noqa: ANN401
        self._publishers[name].publish(message)

    def _send_features(
        self, header: Header, update: LiveUpdate, camera: Camera | None, settings: Settings
    ) -> None:
        if camera is None:
            self._previous = None
            return
        rays = camera.unproject(update.points)
        velocities = compute_ray_velocities(self._previous, update, rays)
        self._previous = update, rays
        confident = update.visible & (update.confidence >= settings.min_confidence)
        features = messages.build_feature_cloud(
            header, replace(update, visible=confident), rays, velocities
        )
        self._send("features", features)


def compute_ray_velocities(
    previous: tuple[LiveUpdate, Floats] | None, update: LiveUpdate, rays: Floats
) -> Floats:
    """Return the velocities [N, 2] of rays per second; 0 for points not visible before.

    Args:
        previous: the previous update and its rays; None before the first.
        update: this update.
        rays: rays [N, 2] of its points on the plane z = 1.

    """
    velocities = np.zeros_like(rays)
    if previous is None or previous[0].stamp >= update.stamp:
        return velocities
    earlier, earlier_rays = previous
    _, rows, earlier_rows = np.intersect1d(update.ids, earlier.ids, True, return_indices=True)
    known = earlier.visible[earlier_rows] & np.isfinite(earlier_rays[earlier_rows]).all(axis=1)
    rows, earlier_rows = rows[known], earlier_rows[known]
    seconds = update.stamp - earlier.stamp
    velocities[rows] = (rays[rows] - earlier_rays[earlier_rows]) / seconds
    return velocities
