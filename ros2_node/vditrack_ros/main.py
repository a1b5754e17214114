"""The command ``vditrack-node``, also as ``python -m vditrack_ros.main``."""

import signal
import sys
from argparse import ArgumentParser
from types import FrameType

from vditrack_ros.parameters import PARAMETERS

_WAKE = 0.2
"""Seconds after which a signal is noticed at the latest."""


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is told to stop; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    own = given[: given.index("--ros-args")] if "--ros-args" in given else given
    _parser().parse_args(own)
    try:
        import rclpy  # noqa: PLC0415
    except ImportError as error:
        print(
            f"vditrack-node: {' '.join(str(error).split())}. Source your ROS set-up "
            "(`source /opt/ros/DISTRIBUTION/setup.bash`), or `pip install vditrack[ros]`.",
            file=sys.stderr,
        )
        return 2
    try:
        # Handled here: rclpy's own handlers end communication before the node can say goodbye.
        options = rclpy.signals.SignalHandlerOptions.NO
        rclpy.init(args=["vditrack-node", *given], signal_handler_options=options)
    # rclpy's exceptions for wrong arguments have no public name.
    except RuntimeError as error:
        print(f"vditrack-node: {' '.join(str(error).split())}.", file=sys.stderr)
        return 2
    try:
        _spin()
    finally:
        rclpy.try_shutdown()
    return 0


def _spin() -> None:
    """Run the node until SIGINT or SIGTERM."""
    from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415

    from vditrack_ros.node import TrackerNode  # noqa: PLC0415

    stop = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True
        # A second one ends the process at once.
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    node, executor = TrackerNode(), SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop:
            executor.spin_once(timeout_sec=_WAKE)
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "vditrack-node",
        usage="vditrack-node [-h] [--ros-args -p NAME:=VALUE ... -r TOPIC:=TOPIC ...]",
        description="Track points and objects in camera topics; the ROS 2 node `tracker`.",
        epilog="parameters: " + ", ".join(parameter.name for parameter in PARAMETERS),
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
