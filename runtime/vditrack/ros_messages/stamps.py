"""Time stamps of ROS messages as integers."""

from typing import Protocol

NANOSECONDS_PER_SECOND = 1_000_000_000


class TimeMessage(Protocol):
    """The fields of builtin_interfaces/Time."""

    sec: int
    nanosec: int


def to_nanoseconds(stamp: TimeMessage) -> int:
    """Convert a builtin_interfaces/Time to nanoseconds.

    Stamps are compared as integers: a float64 of seconds since 1970 resolves only 0.2 microseconds
    and would merge stamps that differ.
    """
    return int(stamp.sec) * NANOSECONDS_PER_SECOND + int(stamp.nanosec)
