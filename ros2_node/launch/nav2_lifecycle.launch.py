"""The tracker under Nav2's lifecycle manager: `ros2 launch vditrack_ros nav2_lifecycle.launch.py`.

Not run yet. The manager configures and activates the tracker, and takes it down if its bond breaks:
the tracker publishes a heartbeat while it is active (its parameter bond). Arguments of
tracker.launch.py may be given too.
"""

# ruff takes launch for a first-party module, because this folder has the same name.
from launch import LaunchContext, LaunchDescription  # noqa: I001
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

BOND_TIMEOUT = 4.0
"""Seconds without a heartbeat after which the manager takes the tracker down."""


def generate_launch_description() -> LaunchDescription:
    """Return the tracker's launch file, and the manager in the same namespace."""
    share = FindPackageShare("vditrack_ros")
    path = PathJoinSubstitution([share, "launch", "tracker.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of both."),
            DeclareLaunchArgument("name", default_value="tracker", description="Its name."),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(path),
                launch_arguments={"autostart": "false", "bond": "true"}.items(),
            ),
            OpaqueFunction(function=_manager),
        ]
    )


def _manager(context: LaunchContext) -> list[Node]:
    namespace, name = LaunchConfiguration("namespace"), LaunchConfiguration("name")
    parameters = {
        "autostart": True,
        # launch takes a list with a substitution for one text.
        "node_names": [name.perform(context)],
        "bond_timeout": BOND_TIMEOUT,
    }
    return [
        Node(
            package="nav2_lifecycle_manager",
            executable="lifecycle_manager",
            name="lifecycle_manager_tracker",
            namespace=namespace,
            parameters=[parameters],
            output="screen",
        )
    ]
