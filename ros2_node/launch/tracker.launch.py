"""Start the tracker on a camera: `ros2 launch vditrack_ros tracker.launch.py namespace:=camera`.

Each parameter of the node is an argument too. Their names, types and descriptions are read from
config/tracker.yaml, which is generated: vditrack itself may be installed in an environment that the
Python of `ros2 launch` does not see.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

# ruff takes launch for a first-party module, because this folder has the same name.
from launch import LaunchContext, LaunchDescription

CONFIG = Path(__file__).parents[1] / "config" / "tracker.yaml"
ARGUMENTS = {
    "namespace": ("", "Namespace of the camera's topics and of the node."),
    "name": ("tracker", "Name of the node."),
    "image": (
        "image",
        "Topic of the image; compressed images are on the same topic with /compressed.",
    ),
    "camera_info": ("camera_info", "Topic of the camera's calibration."),
    # There is a parameter of the name depth.
    "depth_image": ("depth", "Topic of the depth image, aligned to the image."),
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
            *(
                DeclareLaunchArgument(
                    name,
                    default_value="",
                    description=f"{description} Empty: the value in params_file.",
                )
                for name, description in read_descriptions().items()
            ),
            OpaqueFunction(function=_node),
        ]
    )


def read_defaults() -> dict[str, Any]:
    """Return the default of each parameter of the node; its type is the parameter's."""
    defaults: dict[str, Any] = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    return defaults


def read_descriptions() -> dict[str, str]:
    """Return the description of each parameter: the comment above it in the file of defaults."""
    names, descriptions, comment = read_defaults(), {}, []
    for line in CONFIG.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
        else:
            name = text.partition(":")[0]
            if name in names:
                descriptions[name] = " ".join(comment)
            comment = []
    return descriptions


def parse_value(name: str, text: str, default: Any) -> Any:  # noqa: ANN401
    """Return the value of an argument in the type of the parameter's default.

    Args:
        name: of the parameter, for the error message.
        text: as in `name:=text`.
        default: of the parameter.

    Raises:
        ValueError: the text is of another type.

    """
    found = text if isinstance(default, str) else yaml.safe_load(text)
    if isinstance(default, list) and isinstance(found, list):
        # All elements have the type of the first one of the default.
        return [parse_value(name, str(element), default[0]) for element in found]
    if isinstance(default, float) and not isinstance(found, bool):
        # YAML reads 1 as an integer and 1e-3 as text.
        with suppress(TypeError, ValueError):
            found = float(found)
    if type(found) is not type(default):
        kind = {bool: "true or false", int: "an integer", float: "a number", list: "a list"}
        raise ValueError(f"{name}:={text} must be {kind[type(default)]}.")
    return found


def _node(context: LaunchContext) -> list[Node]:
    # The node configures and activates itself, unless its parameter autostart is false.
    given = {name: LaunchConfiguration(name) for name in (*ARGUMENTS, "params_file")}
    sim_time = given["use_sim_time"].perform(context)
    overrides = {"use_sim_time": parse_value("use_sim_time", sim_time, False)}
    for name, default in read_defaults().items():
        text = LaunchConfiguration(name).perform(context)
        if text:
            overrides[name] = parse_value(name, text, default)
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
                ("depth", given["depth_image"]),
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
