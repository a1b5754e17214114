"""One tracker for two cameras: `ros2 launch vditrack_ros two_cameras.launch.py`.

Not run yet. Both share one model. The tracks are on /tracker/left/tracks and /tracker/right/tracks.
Arguments of tracker.launch.py may be given too.
"""

# ruff takes launch for a first-party module, because this folder has the same name.
from launch import LaunchDescription  # noqa: I001
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare

CAMERAS = ("left", "right")
TOPICS = {"image": "image_raw", "camera_info": "camera_info", "depth": "depth/image_raw"}
"""Names that the node uses, and the topics of a camera's driver in the camera's namespace."""


def generate_launch_description() -> LaunchDescription:
    """Return the arguments for the cameras' namespaces, and the tracker's launch file."""
    share = FindPackageShare("vditrack_ros")
    path = PathJoinSubstitution([share, "launch", "tracker.launch.py"])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    camera,
                    default_value=f"/{camera}",
                    description=f"Namespace of the {camera} camera.",
                )
                for camera in CAMERAS
            ),
            *(
                SetRemap(f"{camera}/{name}", [LaunchConfiguration(camera), f"/{topic}"])
                for camera in CAMERAS
                for name, topic in TOPICS.items()
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(path),
                launch_arguments={"cameras": f"[{', '.join(CAMERAS)}]"}.items(),
            ),
        ]
    )
