"""Start the tracker on a camera: `ros2 launch vditrack_ros tracker.launch.py namespace:=camera`."""

# ruff takes launch for ours, by the name of this folder.
from launch import LaunchContext, LaunchDescription  # noqa: I001
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

ARGUMENTS = {
    "namespace": ("", "The camera's namespace: its topics and the node are below."),
    "name": ("tracker", "The node's name."),
    "image": ("image", "Topic of the image; compressed images are below it, as /compressed."),
    "camera_info": ("camera_info", "Topic of the camera's calibration."),
    "depth": ("depth", "Topic of the depth image, aligned to the image."),
    "bundle": ("", "Folder of the model's bundle; empty for what the parameters say."),
    "use_sim_time": ("false", "Whether time comes from /clock."),
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, and the node."""
    defaults = PathJoinSubstitution([FindPackageShare("vditrack_ros"), "config", "tracker.yaml"])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            DeclareLaunchArgument(
                "params_file", default_value=defaults, description="File of the node's parameters."
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Node]:
    # The node configures and activates itself, unless its parameter autostart says otherwise.
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
                # A remapping is of one name: it takes nothing along that is below.
                ("image/compressed", [given["image"], "/compressed"]),
                ("camera_info", given["camera_info"]),
                ("depth", given["depth"]),
            ],
            output="screen",
        )
    ]
