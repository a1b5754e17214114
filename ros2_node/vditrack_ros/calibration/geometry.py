"""The topics from which positions in space are known: camera_info and depth."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import sensor_msgs.msg
from geometry_msgs.msg import PointStamped
from std_msgs.msg import Header

from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.image_transport import DEPTH_TRANSPORTS
from vditrack.ros_messages.positions import Positions, place_by_depth, place_on_plane
from vditrack.ros_messages.stamps import to_nanoseconds
from vditrack_ros.calibration.camera_info import CameraInfo, Size
from vditrack_ros.calibration.depth import DepthSource
from vditrack_ros.calibration.target_frame import TargetFrame
from vditrack_ros.consumer import CameraContext
from vditrack_ros.diagnostics import Problem
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.transport.sensor_subscription import SensorSubscription
from vditrack_ros.transport.topics import resolve_transport_topic


class PlacedImage(Protocol):
    """What places the points of an image in space."""

    @property
    def header(self) -> Header:
        """The image's header."""

    @property
    def stamp(self) -> int:
        """Nanoseconds: the header's stamp, or the time of arrival."""

    @property
    def size(self) -> Size:
        """(height, width)."""


_DEPTH_QUEUE = 5
"""Depth images that the middleware keeps while the node tracks an image."""


class CameraGeometry:
    """Subscribes to a camera's calibration and depth, and places points in space."""

    def __init__(
        self, context: CameraContext, settings: Settings, on_depth: Callable[[], None]
    ) -> None:
        """Subscribe to the topics.

        Args:
            context: of the camera.
            settings: the node's.
            on_depth: called after a depth image has arrived.

        """
        self._node, self._on_depth = context.node, on_depth
        self._info_topic = self._node.resolve_topic_name(f"{context.input_prefix}camera_info")
        self._info = CameraInfo(context.logger, self._info_topic)
        self._transforms = context.transforms
        self._target = TargetFrame(context.logger, context.transforms)
        self._depth: DepthSource | None = None
        self._subscriptions = [self._subscribe_info(context, settings)]
        if settings.depth != "none":
            self._subscriptions.append(self._subscribe_depth(context, settings))

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            subscription.close()

    def camera_for(self, size: Size) -> Camera | None:
        """Return the calibrated camera for images of a (height, width); None if there is none."""
        return self._info.camera_for(size)

    def is_depth_expected(self, settings: Settings) -> bool:
        """Return whether positions are either in metres or unknown."""
        return self._depth is not None and self._depth.is_expected(settings)

    def is_depth_awaited(self, stamp: int, settings: Settings) -> bool:
        """Return whether the depth of an image is likely to arrive soon.

        Args:
            stamp: of the image, in nanoseconds.
            settings: the node's.

        """
        return self._depth is not None and self._depth.is_awaited(stamp, settings)

    def is_transform_awaited(self, header: Header, settings: Settings) -> bool:
        """Return whether the transform of an image to `target_frame` is likely to arrive soon.

        Args:
            header: of the image.
            settings: the node's.

        """
        return self._target.is_awaited(header, settings)

    def place(self, points: Floats, image: PlacedImage, settings: Settings) -> Positions:
        """Return the positions of points in the frame of `header_for`.

        Args:
            points: pixels (x, y) [N, 2] of an image.
            image: the image.
            settings: the node's.

        """
        positions = self._place_in_camera(points, image, settings)
        return self._target.transform(positions, image.header, settings)

    def header_for(self, header: Header, settings: Settings) -> Header:
        """Return the header of positions in an image: its stamp, and the frame they are in."""
        return Header(stamp=header.stamp, frame_id=settings.target_frame or header.frame_id)

    def project(self, point: PointStamped, camera: Camera, header: Header) -> Floats:
        """Return the pixel (x, y) float32 [1, 2] of a point in any frame.

        Args:
            point: with the stamp of the image that it is seen in, or zero for the newest one.
            camera: calibration of the camera.
            header: of the newest image.

        Raises:
            InputError: there is no transform to the camera, or the point is behind it.

        """
        at = point.header.stamp if to_nanoseconds(point.header.stamp) else header.stamp
        transform = self._transforms.look_up(header.frame_id, point.header.frame_id, at)
        place = np.array([[point.point.x, point.point.y, point.point.z]], np.float32)
        pixel = camera.project(transform.apply(place))
        if not np.isfinite(pixel).all():
            raise InputError(
                f"~/add_point in frame {point.header.frame_id!r} is behind the camera."
            )
        return pixel

    def _place_in_camera(self, points: Floats, image: PlacedImage, settings: Settings) -> Positions:
        """Return the positions of points in the camera's optical frame."""
        depth = None
        expected = self._depth is not None and self._depth.is_expected(settings)
        if self._depth is not None and expected:
            depth = self._depth.find(image.stamp, image.size, settings)
        camera = self.camera_for(image.size)
        if camera is None or (expected and depth is None):
            return Positions.unknown(len(points))
        if depth is None:
            return place_on_plane(points, camera)
        return place_by_depth(points, camera, depth)

    def describe(
        self, seconds: float, settings: Settings, *, needed: bool
    ) -> tuple[dict[str, str], list[Problem]]:
        """Return the values and problems for /diagnostics.

        Args:
            seconds: since the first image.
            settings: the node's.
            needed: whether a subscriber asks for what needs a calibration.

        """
        publishers = self._node.count_publishers(self._info_topic)
        needed = needed or self.is_depth_expected(settings)
        values, problems = self._info.describe(seconds, publishers, needed=needed)
        now = time.monotonic()
        sources = [source.describe(now) for source in (self._depth, self._target) if source]
        for more_values, more_problems in sources:
            values |= more_values
            problems += more_problems
        return values, problems

    def _subscribe_info(self, context: CameraContext, settings: Settings) -> SensorSubscription:
        return SensorSubscription(
            context.node,
            sensor_msgs.msg.CameraInfo,
            f"{context.input_prefix}camera_info",
            self._info.update,
            reliability=settings.reliability,
            latched=True,
        )

    def _subscribe_depth(self, context: CameraContext, settings: Settings) -> SensorSubscription:
        node, transport = context.node, DEPTH_TRANSPORTS[settings.depth_transport]
        base = f"{context.input_prefix}depth"
        topic = resolve_transport_topic(node, base, settings.depth_transport)
        name = node.resolve_topic_name(topic)
        depth = self._depth = DepthSource(
            context.logger, name, transport.decode, lambda: node.count_publishers(name)
        )

        def receive(message: Any) -> None:  # noqa: ANN401
            depth.update(message)
            self._on_depth()

        return SensorSubscription(
            node,
            getattr(sensor_msgs.msg, transport.message_type),
            topic,
            receive,
            reliability=settings.reliability,
            depth=_DEPTH_QUEUE,
        )
