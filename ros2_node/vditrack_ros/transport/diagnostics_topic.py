"""The topic /diagnostics, published in all states of the node."""

from collections.abc import Sequence
from copy import copy

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy

from vditrack.errors import InputError
from vditrack_ros.transport.topics import create_publisher

_TOPIC = "/diagnostics"
_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class DiagnosticsPublisher:
    """Publishes statuses from the node's start to its end.

    Overrides of the quality of service that are not allowed have no effect until they are changed,
    so that a node that cannot be configured because of them reports it.
    """

    def __init__(self, node: Node) -> None:
        """Create the publisher, with the overrides if they are allowed.

        Args:
            node: owns the publisher.

        """
        self._node = node
        self._publisher: Publisher | None = None
        self._fallback: Publisher | None = None
        """Publishes without the overrides while they are not allowed."""
        try:
            self.apply_overrides()
        except InputError:
            self._fallback = node.create_publisher(DiagnosticArray, _TOPIC, copy(_QOS))

    def apply_overrides(self) -> None:
        """Use the overrides of the quality of service, unless they are in use.

        Raises:
            InputError: an override has a value that is not allowed.

        """
        if self._publisher is None:
            self._publisher = create_publisher(self._node, DiagnosticArray, _TOPIC, _QOS)
        if self._fallback is not None:
            self._node.destroy_publisher(self._fallback)
            self._fallback = None

    def publish(self, statuses: Sequence[DiagnosticStatus]) -> None:
        """Publish statuses with the time of the node's clock.

        Args:
            statuses: of the node.

        """
        message = DiagnosticArray(status=list(statuses))
        message.header.stamp = self._node.get_clock().now().to_msg()
        publisher = self._publisher or self._fallback
        assert publisher is not None
        publisher.publish(message)
