"""Subscription to a sensor's topic with the quality of service that suits its publishers."""

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from vditrack_ros.transport.losses import LossCounter, Losses
from vditrack_ros.transport.topics import is_overridden, overriding_options

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:
    # The module's name in Humble.
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

_CHECK_PERIOD = 0.2
"""Seconds between two looks at the topic's publishers."""


class SensorSubscription:
    """A subscription whose quality of service follows the publishers of its topic.

    With the reliability "auto" it is reliable while all publishers are, and best effort otherwise,
    so that it receives from all of them. With `latched` it is transient local while all publishers
    are, so that it receives the message that they published before. Publishers come and go: when
    the choice changes, the subscription is created again. Without a publisher the choice stays.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        *,
        reliability: str,
        depth: int = 1,
        latched: bool = False,
    ) -> None:
        """Subscribe.

        Args:
            node: owns the subscription.
            message_type: of the topic.
            topic: its name.
            callback: receives each message.
            reliability: "auto", "reliable" or "best_effort".
            depth: number of messages that wait while the node is busy.
            latched: whether to ask for messages published before, if all publishers store them.

        Raises:
            InputError: a parameter `qos_overrides` has a value that is not allowed.

        """
        self._node, self._message_type, self._topic = node, message_type, topic
        self._callback = callback
        self.topic = str(node.resolve_topic_name(topic))
        self._losses = LossCounter()
        follows = reliability == "auto" and not self._is_overridden("reliability")
        latched = latched and not self._is_overridden("durability")
        self._follows_reliability, self._latched = follows, latched
        name = "RELIABLE" if reliability == "auto" else reliability.upper()
        self._qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy[name])
        self._logged = ""
        self._timer: Any = None
        self._subscription: Subscription | None = None
        self._follow_publishers()
        if self._subscription is None:
            self._subscribe()
        if follows or latched:
            # Timers run on the machine's clock, because simulated time may stand still.
            clock = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = node.create_timer(_CHECK_PERIOD, self._follow_publishers, clock=clock)

    @property
    def is_reliable(self) -> bool:
        """Whether the middleware repeats messages that it loses."""
        return bool(self._used.reliability == ReliabilityPolicy.RELIABLE)

    @property
    def publisher_count(self) -> int:
        """Number of publishers of the topic."""
        return int(self._node.count_publishers(self.topic))

    def take_losses(self) -> Losses:
        """Return the numbers of missing messages since the last call."""
        return self._losses.take()

    def close(self) -> None:
        """Unsubscribe."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._timer = self._subscription = None

    def _is_overridden(self, policy: str) -> bool:
        return is_overridden(self._node, self.topic, "subscription", policy)

    def _follow_publishers(self) -> None:
        """Subscribe again if another quality of service suits the publishers better."""
        found = [one.qos_profile for one in self._node.get_publishers_info_by_topic(self.topic)]
        if not found:
            return
        qos = copy(self._qos)
        if self._follows_reliability:
            qos.reliability = choose_reliability(one.reliability for one in found)
        if self._latched:
            qos.durability = choose_durability(one.durability for one in found)
        chosen = qos.reliability, qos.durability
        if self._subscription is None or chosen != (self._qos.reliability, self._qos.durability):
            self._qos = qos
            self._subscribe()
        self._log_choice(len(found))

    def _subscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._losses.reset()
        # rclpy writes the overrides into the profile that it is given.
        self._used = copy(self._qos)
        arguments = (
            self._message_type,
            self._topic,
            self._on_message_with_info if callbacks_receive_message_info() else self._callback,
            self._used,
        )
        options = overriding_options(self._node, self.topic, "subscription")
        events: dict[str, Callable[[Any], None]] = {"message_lost": self._on_lost}
        if self._follows_reliability:
            # rclpy would warn of publishers of best effort before they are followed.
            events["incompatible_qos"] = lambda _: None
        try:
            self._subscription = self._node.create_subscription(
                *arguments,
                event_callbacks=SubscriptionEventCallbacks(**events),
                qos_overriding_options=options,
            )
        except UnsupportedEventTypeError:
            self._subscription = self._node.create_subscription(
                *arguments, qos_overriding_options=options
            )

    def _log_choice(self, publishers: int) -> None:
        if not self._follows_reliability:
            return
        all_reliable = self._qos.reliability == ReliabilityPolicy.RELIABLE
        chosen = "reliable, as all" if all_reliable else "best effort, as not all"
        text = f"{self.topic} is received {chosen} of its publishers are reliable"
        if text != self._logged:
            self._logged = text
            self._node.get_logger().info(f"{text} (publishers: {publishers}).")

    def _on_message_with_info(self, message: Any, info: Any) -> None:  # noqa: ANN401
        self._losses.receive(info)
        self._callback(message)

    def _on_lost(self, event: Any) -> None:  # noqa: ANN401
        self._losses.report_lost(event.total_count_change)


def choose_reliability(publishers: Iterable[ReliabilityPolicy]) -> ReliabilityPolicy:
    """Return reliable if all publishers are reliable, otherwise best effort."""
    reliable = all(one == ReliabilityPolicy.RELIABLE for one in publishers)
    return ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT


def choose_durability(publishers: Iterable[DurabilityPolicy]) -> DurabilityPolicy:
    """Return transient local if all publishers are transient local, otherwise volatile."""
    stored = all(one == DurabilityPolicy.TRANSIENT_LOCAL for one in publishers)
    return DurabilityPolicy.TRANSIENT_LOCAL if stored else DurabilityPolicy.VOLATILE


def callbacks_receive_message_info() -> bool:
    """Return whether callbacks may take the message info with sequence numbers; Iron and later."""
    return hasattr(Subscription, "CallbackType")
