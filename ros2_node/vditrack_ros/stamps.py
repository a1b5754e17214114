"""Time stamps of ROS messages in nanoseconds."""

from typing import Any

SECOND = 1_000_000_000
"""In nanoseconds, in which all stamps here are: floats would merge those close together."""


def nanoseconds(stamp: Any) -> int:  # noqa: ANN401
    """Of a builtin_interfaces/Time."""
    return int(stamp.sec) * SECOND + int(stamp.nanosec)
