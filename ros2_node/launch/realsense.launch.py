"""A RealSense camera with depth, and the tracker: `ros2 launch vditrack_ros realsense.launch.py`.

Not run yet. Topics are those of realsense-ros 4.55 and later. Arguments of tracker.launch.py may be
given too, for example `points:=128`.
"""

# ruff takes launch for a first-party module, because this folder has the same name.
from launch import LaunchDescription  # noqa: I001
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Return the camera's launch file and the tracker's."""
    camera = LaunchConfiguration("camera")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera", default_value="camera", description="Name and namespace of the camera."
            ),
            DeclareLaunchArgument(
                "profile",
                default_value="640x480x30",
                description="Width, height and rate of the colour images.",
            ),
            _include(
                "realsense2_camera",
                "rs_launch.py",
                {
                    "camera_name": camera,
                    "camera_namespace": camera,
                    "rgb_camera.color_profile": LaunchConfiguration("profile"),
                    # Depth images of the size and view of the colour images.
                    "align_depth.enable": "true",
                },
            ),
            _include(
                "vditrack_ros",
                "tracker.launch.py",
                {
                    "namespace": [camera, "/", camera],
                    "image": "color/image_raw",
                    "camera_info": "color/camera_info",
                    "depth_image": "aligned_depth_to_color/image_raw",
                },
            ),
        ]
    )


def _include(package: str, name: str, arguments: dict) -> IncludeLaunchDescription:
    path = PathJoinSubstitution([FindPackageShare(package), "launch", name])
    source = PythonLaunchDescriptionSource(path)
    return IncludeLaunchDescription(source, launch_arguments=arguments.items())
