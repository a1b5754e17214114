"""The topics on which a camera's points are published, each made only for those who listen."""

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
from vditrack.ros_messages.camera_info import Camera, place
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros import messages as outputs
from vditrack_ros.calibration import Sight
from vditrack_ros.parameters import Settings

if outputs.HAS_FOXGLOVE:
    from foxglove_msgs.msg import ImageAnnotations

Size = tuple[int, int]

_DEPTH = 5
"""Messages kept for a subscriber that was busy: they are small."""


class Publishers:
    """Publishers below a prefix, and what they must remember of the updates before."""

    def __init__(self, node: Node, prefix: str) -> None:
        self._node = node
        # Reliable, which subscribers of either kind can connect to.
        small = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        kinds: dict[str, Any] = {
            "tracks": PointCloud2,
            "features": PointCloud,
            "markers": MarkerArray,
        }
        if outputs.HAS_FOXGLOVE:
            kinds["annotations"] = ImageAnnotations
        self._publishers = {
            name: node.create_publisher(kind, f"{prefix}{name}", small)
            for name, kind in kinds.items()
        }
        self.reset()

    def reset(self) -> None:
        """Forget the updates before."""
        self._rays: tuple[LiveUpdate, Floats] | None = None

    def close(self) -> None:
        """Free the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def publish(
        self,
        header: Header,
        size: Size,
        update: LiveUpdate,
        objects: NDArray[np.uint8],
        sight: Sight,
        settings: Settings,
    ) -> None:
        """Publish an update to whoever listens.

        Args:
            header: of the image, as it came.
            size: of the image, (height, width).
            update: where the points are in it.
            objects: [N] index of the object that each is on, 0 for none.
            sight: what is known of the camera.
            settings: the node's.

        """
        if self._wanted("tracks") or self._wanted("markers"):
            camera = sight.camera(size)
            depth = None
            if camera is not None:
                depth = sight.depth(header.stamp, size, settings.depth_tolerance)
            xyz = place(update.points, camera, depth)
            if self._wanted("tracks"):
                self._send("tracks", outputs.tracks_cloud(header, update, objects, xyz))
            if self._wanted("markers"):
                self._send("markers", outputs.markers(header, update, xyz))
        if self._wanted("features"):
            self._send_features(header, update, sight.camera(size), settings)
        if self._wanted("annotations"):
            self._send("annotations", outputs.annotations(header, update))

    def _wanted(self, name: str) -> bool:
        publisher = self._publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _send(self, name: str, message: Any) -> None:  # noqa: ANN401
        self._publishers[name].publish(message)

    def _send_features(
        self, header: Header, update: LiveUpdate, camera: Camera | None, settings: Settings
    ) -> None:
        if camera is None:
            self._rays = None
            return
        rays = camera.rays(update.points)
        velocities = ray_velocities(self._rays, update, rays)
        self._rays = update, rays
        sure = replace(
            update, visible=update.visible & (update.confidence >= settings.min_confidence)
        )
        self._send("features", outputs.features_cloud(header, sure, rays, velocities))


def ray_velocities(
    before: tuple[LiveUpdate, Floats] | None, update: LiveUpdate, rays: Floats
) -> Floats:
    """Velocities [N, 2] of rays, a second; 0 of a point that was not visible in the update before.

    Args:
        before: the update before and its rays.
        update: this one.
        rays: [N, 2] of its points.

    """
    velocities = np.zeros_like(rays)
    if before is None or before[0].stamp >= update.stamp:
        return velocities
    earlier, earlier_rays = before
    _, here, there = np.intersect1d(update.ids, earlier.ids, True, return_indices=True)
    seen = earlier.visible[there] & np.isfinite(earlier_rays[there]).all(axis=1)
    here, there = here[seen], there[seen]
    velocities[here] = (rays[here] - earlier_rays[there]) / (update.stamp - earlier.stamp)
    return velocities
