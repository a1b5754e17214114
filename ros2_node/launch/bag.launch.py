"""Play a bag through the tracker: `ros2 launch vditrack_ros bag.launch.py bag:=DIR image:=TOPIC`.

Not run yet. The tracker takes its time from the bag. Arguments of tracker.launch.py may be given
too. To track a bag without ROS, and without losing an image, use `vditrack track`.
"""

# ruff takes launch for a first-party module, because this folder has the same name.
from launch import LaunchDescription  # noqa: I001
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Return the tracker's launch file, and the player, whose end is the end of all."""
    share = FindPackageShare("vditrack_ros")
    path = PathJoinSubstitution([share, "launch", "tracker.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="Folder or file of the bag."),
            DeclareLaunchArgument(
                "delay",
                default_value="5",
                description="Seconds before the bag begins; meanwhile the model loads.",
            ),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed of playing."),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(path),
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
            ExecuteProcess(
                cmd=[
                    *("ros2", "bag", "play", LaunchConfiguration("bag"), "--clock"),
                    *("--delay", LaunchConfiguration("delay")),
                    *("--rate", LaunchConfiguration("rate")),
                ],
                on_exit=Shutdown(),
                output="screen",
            ),
        ]
    )
