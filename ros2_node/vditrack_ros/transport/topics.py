"""Names of topics, and overrides of their quality of service by parameters."""

from collections.abc import Callable
from copy import copy
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from vditrack.errors import InputError

_POLICIES: dict[str, type[HistoryPolicy] | type[ReliabilityPolicy] | type[DurabilityPolicy]] = {
    "history": HistoryPolicy,
    "reliability": ReliabilityPolicy,
    "durability": DurabilityPolicy,
}
_OVERRIDABLE = ("history", "depth", "reliability", "durability")
_MAX_DEPTH = 10_000


def resolve_transport_topic(node: Node, base: str, transport: str) -> str:
    """Return the name of a base topic with a transport's suffix, such as `image/compressed`.

    A remapping of the base topic applies to the suffixed topic too, as in image_transport, unless
    the suffixed topic has a remapping of its own. In ROS a remapping applies to one name only.

    Args:
        node: has the remappings.
        base: name of the topic without the transport.
        transport: the suffix; "raw" has none.

    """
    if transport == "raw":
        return base
    suffixed = f"{base}/{transport}"
    if node.resolve_topic_name(suffixed) != node.resolve_topic_name(suffixed, only_expand=True):
        return suffixed
    return f"{node.resolve_topic_name(base)}/{transport}"


def create_publisher(node: Node, message_type: type, topic: str, qos: QoSProfile) -> Publisher:
    """Create a publisher whose quality of service the parameters `qos_overrides` may change.

    Args:
        node: owns the publisher.
        message_type: of the topic.
        topic: its name.
        qos: without overrides.

    Raises:
        InputError: an override has a value that is not allowed.

    """
    options = overriding_options(node, node.resolve_topic_name(topic), "publisher")
    # rclpy writes the overrides into the profile that it is given.
    return node.create_publisher(message_type, topic, copy(qos), qos_overriding_options=options)


def create_subscription(
    node: Node, message_type: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile
) -> Subscription:
    """Create a subscription whose quality of service the parameters `qos_overrides` may change.

    Args:
        node: owns the subscription.
        message_type: of the topic.
        topic: its name.
        callback: receives each message.
        qos: without overrides.

    Raises:
        InputError: an override has a value that is not allowed.

    """
    options = overriding_options(node, node.resolve_topic_name(topic), "subscription")
    return node.create_subscription(
        message_type, topic, callback, copy(qos), qos_overriding_options=options
    )


def overriding_options(node: Node, topic: str, kind: str) -> QoSOverridingOptions:
    """Return the options for the policies of a topic that parameters override.

    Only parameters that were given are declared: rclpy declares an override once with the value in
    use, and never changes it, so that another `reliability` would have no effect later.

    Args:
        node: has the parameters.
        topic: its full name.
        kind: "publisher" or "subscription".

    Raises:
        InputError: an override has a value that is not allowed.

    """
    given = [name for name in _OVERRIDABLE if _read_override(node, topic, kind, name) is not None]
    return QoSOverridingOptions([QoSPolicyKind[name.upper()] for name in given])


def is_overridden(node: Node, topic: str, kind: str, policy: str) -> bool:
    """Return whether a parameter overrides a policy, such as "reliability", of a topic."""
    return _read_override(node, topic, kind, policy) is not None


def _read_override(node: Node, topic: str, kind: str, policy: str) -> Any:  # noqa: ANN401
    """Return the checked value of an override; None if there is none."""
    name = f"qos_overrides.{topic}.{kind}.{policy}"
    value = node.get_parameter(name).value if node.has_parameter(name) else None
    if value is None:
        return None
    if policy == "depth":
        if type(value) is not int or not 1 <= value <= _MAX_DEPTH:
            raise InputError(f"{name} is {value!r}; it must be an integer from 1 to {_MAX_DEPTH}.")
        return value
    allowed = [one.name.lower() for one in _POLICIES[policy] if one.name != "UNKNOWN"]
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")
    return value
