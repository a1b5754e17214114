"""Transforms between coordinate frames, by tf2 where it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time as RosTime

from vditrack.arrays import Doubles, Floats
from vditrack.errors import InputError
from vditrack.ros_messages.stamps import TimeMessage, to_nanoseconds


def import_tf2(reason: str) -> ModuleType:
    """Import tf2_ros, which no wheel has.

    Args:
        reason: what it is needed for, the begin of the error message.

    Raises:
        InputError: it cannot be imported.

    """
    try:
        return import_module("tf2_ros")
    except ImportError as error:
        raise InputError(
            f"{reason} needs tf2, and tf2_ros cannot be imported ({error}). Install "
            "ros-$ROS_DISTRO-tf2-ros-py; it is not on PyPI."
        ) from error


class MissingTransformError(InputError):
    """There is no such transform, or it has not arrived."""


@dataclass(frozen=True)
class RigidTransform:
    """A rotation and a translation from one frame to another."""

    rotation: Doubles
    """[3, 3]."""
    translation: Doubles
    """[3]."""

    @classmethod
    def from_message(cls, transform: Any) -> RigidTransform:  # noqa: ANN401
        """Read a geometry_msgs/Transform.

        Args:
            transform: the message; its quaternion is normalized here.

        """
        shift, turn = transform.translation, transform.rotation
        x, y, z, w = np.array([turn.x, turn.y, turn.z, turn.w]) / np.linalg.norm(
            [turn.x, turn.y, turn.z, turn.w]
        )
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        return cls(rotation, np.array([shift.x, shift.y, shift.z]))

    def apply(self, xyz: Floats) -> Floats:
        """Return points [N, 3] in the other frame; NaN stays NaN."""
        return np.asarray(xyz @ self.rotation.T + self.translation, np.float32)


class FrameTransforms:
    """Looks transforms up; it listens to /tf from the first time on."""

    def __init__(self, node: Node) -> None:
        """Start without a listener.

        Args:
            node: owns the listener's subscriptions.

        """
        self._node = node
        self._tf2: ModuleType | None = None
        self._buffer: Any = None
        self._listener: Any = None

    def close(self) -> None:
        """Destroy the listener."""
        if self._listener is not None:
            self._listener.unregister()
        self._buffer = self._listener = None

    def look_up(self, target: str, source: str, stamp: TimeMessage) -> RigidTransform:
        """Return the transform from one frame to another at a time.

        Args:
            target: frame of the result.
            source: frame of what is transformed.
            stamp: the time; zero for the newest transform.

        Raises:
            InputError: tf2 is not installed.
            MissingTransformError: there is no such transform, or it has not arrived.

        """
        tf2 = self._listen(f"a transform from {source!r} to {target!r}")
        try:
            found = self._buffer.lookup_transform(target, source, RosTime.from_msg(stamp))
        except tf2.TransformException as error:
            raise MissingTransformError(
                f"there is no transform from {source!r} to {target!r} at the stamp "
                f"{stamp.sec}.{stamp.nanosec:09d}: {error}"
            ) from error
        return RigidTransform.from_message(found.transform)

    def find_newest_stamp(self, target: str, source: str) -> int | None:
        """Return the stamp of the newest transform in nanoseconds; None if there is none.

        Args:
            target: frame of the result.
            source: frame of what is transformed.

        Raises:
            InputError: tf2 is not installed.

        """
        tf2 = self._listen(f"a transform from {source!r} to {target!r}")
        try:
            newest = self._buffer.lookup_transform(target, source, RosTime())
        except tf2.TransformException:
            return None
        return to_nanoseconds(newest.header.stamp)

    def _listen(self, reason: str) -> ModuleType:
        if self._tf2 is None:
            self._tf2 = import_tf2(reason)
        if self._listener is None:
            self._buffer = self._tf2.Buffer()
            self._listener = self._tf2.TransformListener(self._buffer, self._node)
        return self._tf2
