"""Publishers of the points of a camera. A message is built only if its topic has a subscriber."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from vditrack.arrays import Bools
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.positions import Positions
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros import messages
from vditrack_ros.features import FeatureSelector
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.transport.topics import create_publisher

if messages.HAS_FOXGLOVE:
    from foxglove_msgs.msg import ImageAnnotations
if messages.HAS_VDITRACK_MSGS:
    from vditrack_msgs.msg import TrackArray

_QUEUE_DEPTH = 5
"""Messages stored for a subscriber that is busy; they are small."""


class PointPublishers:
    """The publishers of `~/tracks`, `~/features` and `~/markers`.

    If their packages are installed, it also has those of `~/track_array` and `~/annotations`.
    """

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
        if messages.HAS_VDITRACK_MSGS:
            types["track_array"] = TrackArray
        self._publishers = {
            name: create_publisher(node, message_type, f"{prefix}{name}", qos)
            for name, message_type in types.items()
        }
        self._features = FeatureSelector()

    def reset(self) -> None:
        """Forget the points of `~/features`: those that follow are others."""
        self._features.reset()

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
        return any(map(self._is_wanted, ("tracks", "track_array", "markers")))

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
        else:
            self._features.reset()
        if self._is_wanted("annotations"):
            self._send("annotations", messages.build_annotations(header, update))

    def publish_positions(
        self,
        header: Header,
        update: LiveUpdate,
        objects: NDArray[np.uint8],
        positions: Positions,
        requested: Bools,
    ) -> None:
        """Publish an update on the topics with positions in space that have subscribers.

        Args:
            header: of the image.
            update: the points in the image.
            objects: uint8 [N] index of the object of each point, 0 for none.
            positions: of the points.
            requested: [N] which points were asked for.

        """
        if self._is_wanted("tracks"):
            cloud = messages.build_track_cloud(header, update, objects, positions, requested)
            self._send("tracks", cloud)
        if self._is_wanted("track_array"):
            array = messages.build_track_array(header, update, objects, positions, requested)
            self._send("track_array", array)
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
            self._features.reset()
            return
        rays, focal = camera.unproject(update.points), float(np.mean(np.diag(camera.matrix)[:2]))
        features = self._features.select(update, rays, focal, settings)
        if features is not None:
            layout = settings.features_layout
            self._send("features", messages.build_feature_cloud(header, features, layout))
