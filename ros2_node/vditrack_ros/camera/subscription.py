"""Detection of lost messages, over the differences between ROS distributions."""

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:
    # The module's name in Humble.
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError


def callbacks_receive_message_info() -> bool:
    """Return whether callbacks may take the message info with sequence numbers; Iron and later."""
    return hasattr(Subscription, "CallbackType")


def count_skipped_messages(
    info: Mapping[str, Any], last: tuple[bytes, int] | None
) -> tuple[tuple[bytes, int] | None, int]:
    """Return a message's (publisher, sequence number), and how many were skipped before it.

    Args:
        info: message info from rclpy.
        last: (publisher, sequence number) of the previous message.

    """
    number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
    if number is None or publisher is None:
        return None, 0
    current = bytes(publisher["data"]), int(number)
    if last is None or last[0] != current[0]:
        return current, 0
    return current, max(0, current[1] - last[1] - 1)


def subscribe_with_loss_events(
    node: Node,
    message_type: type,
    topic: str,
    callback: Callable[..., None],
    qos: QoSProfile,
    on_lost: Callable[[Any], None],
) -> Subscription:
    """Create a subscription that reports lost messages where the middleware supports it.

    Args:
        node: owns the subscription.
        message_type: of the topic.
        topic: its name.
        callback: receives messages.
        qos: quality of service.
        on_lost: receives the events of lost messages.

    """
    events = SubscriptionEventCallbacks(message_lost=on_lost)
    try:
        return node.create_subscription(message_type, topic, callback, qos, event_callbacks=events)
    except UnsupportedEventTypeError:
        return node.create_subscription(message_type, topic, callback, qos)
