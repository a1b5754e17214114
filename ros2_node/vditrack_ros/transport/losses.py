"""Counts of messages that were sent and not received, by their cause. Needs no ROS."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Losses(NamedTuple):
    """Numbers of messages that were sent and not received."""

    lost: int
    """The middleware lost them on the way."""
    overtaken: int
    """They arrived, and newer ones replaced them in the queue."""


class LossCounter:
    """Counts each message that is missing once.

    Two sources tell of missing messages. The middleware reports those that it lost. Gaps in the
    sequence numbers of received messages show all that are missing: the lost ones, reported before
    or after the gap is seen, and those that newer ones replaced in the queue.
    """

    def __init__(self) -> None:
        """Start without messages."""
        self._lost = self._overtaken = 0
        self.reset()

    def reset(self) -> None:
        """Forget the last message, because another subscription receives the next one."""
        self._last: tuple[bytes, int] | None = None
        self._unexplained = 0
        """Messages skipped before the last one, not reported as lost so far."""
        self._unseen = 0
        """Messages reported as lost, whose gap was not seen so far."""

    def receive(self, info: Mapping[str, Any]) -> None:
        """Count what is missing between a message and the one before.

        Args:
            info: message info from rclpy. Without sequence numbers nothing is counted.

        """
        # The reports on the gap before the last message have been handled by now.
        self._overtaken += self._unexplained
        self._unexplained = 0
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is None or publisher is None:
            self._last = None
            return
        last, self._last = self._last, (bytes(publisher["data"]), int(number))
        if last is None or last[0] != self._last[0]:
            self._unseen = 0
            return
        skipped = max(0, self._last[1] - last[1] - 1)
        explained = min(skipped, self._unseen)
        self._unseen -= explained
        self._unexplained = skipped - explained

    def report_lost(self, count: int) -> None:
        """Count messages that the middleware reports as lost."""
        self._lost += count
        explained = min(count, self._unexplained)
        self._unexplained -= explained
        self._unseen += count - explained

    def take(self) -> Losses:
        """Return what was counted since the last call."""
        losses = Losses(self._lost, self._overtaken)
        self._lost = self._overtaken = 0
        return losses
