"""The bond with a lifecycle manager. The package bond is not on PyPI: its message is a double."""

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
from builtin_interfaces.msg import Time

from doubles.ros_loopback import PATIENCE, tracker_node
from vditrack.errors import InputError
from vditrack_ros.bond import Bond, import_status


class Status:
    """The fields of bond/Status."""

    __slots__ = ("active", "header", "heartbeat_period", "heartbeat_timeout", "id", "instance_id")

    def __init__(self):
        self.header = SimpleNamespace(stamp=None)


class Node:
    """The methods of a node that a bond uses."""

    def __init__(self):
        self.sent, self.topics, self.timers = [], [], {}

    def get_name(self):
        return "tracker"

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: Time(sec=5)))

    def create_publisher(self, kind, topic, depth):
        self.topics.append(topic)
        return SimpleNamespace(publish=self.sent.append)

    def create_timer(self, period, callback, clock):
        self.timers[callback] = period
        return callback

    def destroy_timer(self, timer):
        del self.timers[timer]

    def destroy_publisher(self, publisher):
        self.topics.clear()


def test_heartbeats_say_that_the_node_is_alive_until_it_is_closed():
    node = Node()
    bond = Bond(node, Status)
    assert node.topics == ["bond"]
    ((beat, period),) = node.timers.items()
    beat()
    bond.close()
    assert [status.active for status in node.sent] == [True, True, False]
    assert {status.id for status in node.sent} == {"tracker"}
    assert len({status.instance_id for status in node.sent}) == 1
    assert all(status.header.stamp.sec == 5 for status in node.sent)
    assert all(status.heartbeat_period == period < status.heartbeat_timeout for status in node.sent)
    assert (node.topics, node.timers) == ([], {})
    # A manager tells two lives of a node apart.
    again = Bond(Node(), Status)
    assert again._instance != bond._instance


def test_the_message_comes_from_the_package_bond(monkeypatch):
    with pytest.raises(InputError, match=r"apt install ros-\$ROS_DISTRO-bond"):
        import_status()
    package, messages = ModuleType("bond"), ModuleType("bond.msg")
    messages.Status = Status
    monkeypatch.setitem(sys.modules, "bond", package)
    monkeypatch.setitem(sys.modules, "bond.msg", messages)
    assert import_status() is Status


@pytest.mark.slow
def test_a_node_that_cannot_have_its_bond_does_not_start(tmp_path):
    with tracker_node(tmp_path, bond="true") as node:
        deadline = time.monotonic() + PATIENCE
        while "Cannot configure: bond is true" not in node.log:
            assert node.alive and time.monotonic() < deadline, node.log
            time.sleep(0.05)
