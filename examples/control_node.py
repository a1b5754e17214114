"""Change the state and the parameters of the ROS 2 node, where there is no `ros2` command.

vditrack-node                                            # in another terminal
python examples/control_node.py /tracker deactivate cleanup depth=none configure activate

The words are done in order: a transition of the lifecycle, or NAME=VALUE with the value in YAML.
The script stops at the first one that fails, and then its exit status is 1.
"""

import sys
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import get_parameter_value

TIMEOUT = 60.0
"""Seconds that an answer may take; loading a model takes the longest."""


def call(client_node: Node, service_type: Any, name: str, request: Any) -> Any:  # noqa: ANN401
    """Return the answer of a service."""
    client = client_node.create_client(service_type, name)
    if not client.wait_for_service(TIMEOUT):
        sys.exit(f"There is no service {name}. Does the node run, in this ROS_DOMAIN_ID?")
    future = client.call_async(request)
    rclpy.spin_until_future_complete(client_node, future, timeout_sec=TIMEOUT)
    if not future.done():
        sys.exit(f"{name} does not answer.")
    return future.result()


def set_parameter(client_node: Node, name: str, parameter: str, value: str) -> None:
    """Set a parameter of the node with this name; the value is in YAML."""
    request = SetParameters.Request(
        parameters=[Parameter(name=parameter, value=get_parameter_value(value))]
    )
    (result,) = call(client_node, SetParameters, f"{name}/set_parameters", request).results
    if not result.successful:
        sys.exit(f"{parameter} is not set: {result.reason}")


def change_state(client_node: Node, name: str, transition: str) -> None:
    """Do a transition of the node with this name, such as "configure"."""
    request = ChangeState.Request()
    request.transition.label = transition
    if not call(client_node, ChangeState, f"{name}/change_state", request).success:
        sys.exit(f"{transition} failed. The log of the node and /diagnostics say why.")


if __name__ == "__main__":
    rclpy.init()
    control = rclpy.create_node("control_node")
    target, *words = sys.argv[1:]
    for word in words:
        name, is_parameter, value = word.partition("=")
        if is_parameter:
            set_parameter(control, target, name, value)
        else:
            change_state(control, target, word)
        print(f"{word}: done", flush=True)
