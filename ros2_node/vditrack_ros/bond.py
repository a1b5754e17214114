"""The bond with a lifecycle manager, such as Nav2's: a heartbeat while the node is active.

The manager takes the node down when the heartbeat stops. The messages are those of bond_core.
"""

from importlib import import_module
from typing import Any
from uuid import uuid4

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from vditrack.errors import InputError

TOPIC = "bond"
_PERIOD = 0.1
"""Seconds between two heartbeats, as of Nav2's own nodes."""
_TIMEOUT = 4.0
"""Seconds without a heartbeat after which a bond is broken; bond_core's default."""


def import_status() -> Any:  # noqa: ANN401
    """Import the type of the heartbeat, bond/Status.

    Raises:
        InputError: the package bond is not installed.

    """
    try:
        return import_module("bond.msg").Status
    except ImportError as error:
        raise InputError(
            f"bond is true, and the messages of the package bond cannot be imported ({error}). Run "
            "`sudo apt install ros-$ROS_DISTRO-bond`, or set bond to false and the manager's "
            "bond_timeout to 0."
        ) from error


class Bond:
    """Sends heartbeats from the thread that handles the node's callbacks, until it is closed.

    A node that hangs there sends none. The bond's name is the node's, without its namespace.
    """

    def __init__(self, node: Node, status_type: Any) -> None:  # noqa: ANN401
        """Send the first heartbeat.

        Args:
            node: owns the topic and the timer.
            status_type: from `import_status`.

        """
        self._node, self._status_type = node, status_type
        self._instance = str(uuid4())
        self._publisher = node.create_publisher(status_type, TOPIC, 1)
        # Simulated time may stand still.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD, self._beat, clock=clock)
        self._beat()

    def close(self) -> None:
        """Say that the node ends on purpose, and stop."""
        self._node.destroy_timer(self._timer)
        self._send(active=False)
        self._node.destroy_publisher(self._publisher)

    def _beat(self) -> None:
        self._send(active=True)

    def _send(self, *, active: bool) -> None:
        status = self._status_type()
        status.header.stamp = self._node.get_clock().now().to_msg()
        status.id = self._node.get_name()
        status.instance_id = self._instance
        status.active = active
        status.heartbeat_timeout = _TIMEOUT
        status.heartbeat_period = _PERIOD
        self._publisher.publish(status)
