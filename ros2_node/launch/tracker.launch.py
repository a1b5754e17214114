"""Start the tracker on a camera: `ros2 launch vditrack_ros tracker.launch.py namespace:=camera`."""

# ruff takes launch for a first-party module, because this folder has the same name.
from launch import LaunchContext, LaunchDescription  # noqa: I001
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

ARGUMENTS = {
    "namespace": ("", "Namespace of the camera's topics and of the node."),
    "name": ("tracker", "Name of the node."),
    "image": (
        "image",
        "Topic of the image; compressed images are on the same topic with /compressed.",
    ),
    "camera_info": ("camera_info", "Topic of the camera's calibration."),
    "depth": ("depth", "Topic of the depth image, aligned to the image."),
    "bundle": ("", "Folder of the model's bundle; empty to use the parameter file's."),
    "use_sim_time": ("false", "Whether to take the time from /clock."),
}


def generate_launch_description() -> LaunchDescription:
    """Return the launch arguments and the node."""
    defaults = PathJoinSubstitution([FindPackageShare("vditrack_ros"), "config", "tracker.yaml"])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            DeclareLaunchArgument(
                "params_file", default_value=defaults, description="Parameter file."
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Node]:
    # The node configures and activates itself, unless its parameter autostart is false.
    given = {name: LaunchConfiguration(name) for name in (*ARGUMENTS, "params_file")}
    overrides = {"use_sim_time": ParameterValue(given["use_sim_time"], value_type=bool)}
    if given["bundle"].perform(context):
        overrides["bundle"] = ParameterValue(given["bundle"], value_type=str)
    return [
        Node(
            package="vditrack_ros",
            executable="vditrack-node",
            name=given["name"],
            namespace=given["namespace"],
            parameters=[given["params_file"], overrides],
            remappings=[
                ("image", given["image"]),
                ("camera_info", given["camera_info"]),
                ("depth", given["depth"]),
            ],
            additional_env=_fastdds_profile(context),
            output="screen",
        )
    ]


def _fastdds_profile(context: LaunchContext) -> dict[str, str]:
    """Return the environment that gives Fast DDS memory for large images, unless one is set."""
    # The name of the variable before and since Fast DDS 3.
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    if any(name in context.environment for name in names):
        return {}
    share = FindPackageShare("vditrack_ros")
    profile = PathJoinSubstitution([share, "config", "fastdds.xml"]).perform(context)
    return dict.fromkeys(names, profile)
