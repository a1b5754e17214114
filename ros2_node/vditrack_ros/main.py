"""The command `vditrack-node`, also run as `python -m vditrack_ros.main`."""

import signal
import sys
from argparse import ArgumentParser
from types import FrameType

import cv2

from vditrack.errors import install_command
from vditrack.input_checks.text import clean_line
from vditrack_ros.parameters.table import PARAMETERS
from vditrack_ros.process import reuse_large_blocks
from vditrack_ros.transport.fastdds import PROFILE, PROFILE_VARIABLE

_SPIN_TIMEOUT = 0.2
"""Maximum number of seconds until a signal is noticed."""


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, and return the exit code.

    Args:
        arguments: of the command line; those of the process by default.

    """
    given = sys.argv[1:] if arguments is None else arguments
    own = given[: given.index("--ros-args")] if "--ros-args" in given else given
    if _build_parser().parse_args(own).fastdds_profile:
        print(PROFILE)
        return 0
    try:
        import rclpy  # noqa: PLC0415
    except ImportError as error:
        _print_error(
            f"{error}. Source your ROS set-up (`source /opt/ros/DISTRIBUTION/setup.bash`), or run "
            f"`{install_command('ros')}`."
        )
        return 2
    reuse_large_blocks()
    # Most calls are so small that waking a second thread takes longer than it saves.
    cv2.setNumThreads(1)
    try:
        # rclpy's own handlers would end communication before the node has shut down.
        options = rclpy.signals.SignalHandlerOptions.NO
        rclpy.init(args=["vditrack-node", *given], signal_handler_options=options)
    # rclpy's exceptions for invalid arguments have no public name.
    except RuntimeError as error:
        _print_error(f"{error}.")
        return 2
    try:
        _spin()
    finally:
        rclpy.try_shutdown()
    return 0


def _print_error(text: str) -> None:
    print(f"vditrack-node: {clean_line(text)}", file=sys.stderr)


def _spin() -> None:
    """Run the node until SIGINT or SIGTERM."""
    from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415

    from vditrack_ros.node import TrackerNode  # noqa: PLC0415

    stop = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True
        # A second signal ends the process at once.
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    node, executor = TrackerNode(), SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop:
            executor.spin_once(timeout_sec=_SPIN_TIMEOUT)
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()


def _build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        "vditrack-node",
        usage="vditrack-node [-h] [--fastdds-profile] "
        "[--ros-args -p NAME:=VALUE ... -r TOPIC:=TOPIC ...]",
        description="Track points and object masks in camera topics; the ROS 2 node `tracker`.",
        epilog="parameters: " + ", ".join(parameter.name for parameter in PARAMETERS),
    )
    parser.add_argument(
        "--fastdds-profile",
        action="store_true",
        help="print the path of the Fast DDS profile for large images, the value of "
        f"{PROFILE_VARIABLE} for the camera's process and this one, and exit",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
