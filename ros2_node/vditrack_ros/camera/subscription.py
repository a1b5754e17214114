"""What rclpy tells of messages that were missed; it differs from one distribution to the next."""

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:
    # Humble's name.
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError


def tells_sequence() -> bool:
    """Whether callbacks may take a message's number as well: from Iron onward."""
    return hasattr(Subscription, "CallbackType")


def skipped_before(
    info: Mapping[str, Any], last: tuple[bytes, int] | None
) -> tuple[tuple[bytes, int] | None, int]:
    """Tell a message's publisher and number, and how many were skipped since the last one.

    Args:
        info: of the message, as rclpy gives it.
        last: what this function told of the message before.

    """
    number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
    if number is None or publisher is None:
        return None, 0
    this = bytes(publisher["data"]), int(number)
    if last is None or last[0] != this[0]:
        return this, 0
    return this, max(0, this[1] - last[1] - 1)


def subscribe_telling_losses(
    node: Node,
    kind: type,
    topic: str,
    callback: Callable[..., None],
    qos: QoSProfile,
    lost: Callable[[Any], None],
) -> Subscription:
    """Subscribe, and have losses told where the middleware notices them."""
    events = SubscriptionEventCallbacks(message_lost=lost)
    try:
        return node.create_subscription(kind, topic, callback, qos, event_callbacks=events)
    except UnsupportedEventTypeError:
        return node.create_subscription(kind, topic, callback, qos)
