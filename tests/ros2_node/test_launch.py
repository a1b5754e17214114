"""The launch files, evaluated with a double of launch, which is not on PyPI."""

from pathlib import Path

import pytest

from doubles import launch as launch_double
from vditrack_ros.parameters.settings import build_settings
from vditrack_ros.parameters.table import PARAMETERS
from vditrack_ros.transport.fastdds import OLD_PROFILE_VARIABLE, PROFILE, PROFILE_VARIABLE

PACKAGE = Path(__file__).parents[2] / "ros2_node"
LAUNCH = PACKAGE / "launch"
SHARES = {"vditrack_ros": PACKAGE, "realsense2_camera": Path("/opt/realsense2_camera")}


@pytest.fixture(autouse=True)
def _launch(monkeypatch):
    launch_double.install(monkeypatch)


def evaluate(file: str, environment: dict[str, str] | None = None, /, **arguments: str):
    """The actions of a launch file, and its context."""
    context = launch_double.LaunchContext(shares=SHARES, environment=environment or {})
    description = launch_double.read_launch_file(LAUNCH / file)
    return description.evaluate(context, **arguments), context


def launched(environment: dict[str, str] | None = None, /, **arguments: str) -> dict:
    (node,), context = evaluate("tracker.launch.py", environment, **arguments)
    assert (node.package, node.executable) == ("vditrack_ros", "vditrack-node")
    return node.arguments(context)


def test_the_launch_file_starts_the_node_with_the_defaults():
    node = launched()
    assert (node["name"], node["namespace"]) == ("tracker", "")
    (file,) = node["files"]
    assert file.samefile(PACKAGE / "config" / "tracker.yaml")
    # Nothing that would hide what the file says.
    assert node["values"] == {"use_sim_time": False}
    assert all(old == new for old, new in node["remappings"].items())


def test_the_launch_file_passes_on_what_it_is_given(tmp_path):
    node = launched(
        namespace="front",
        name="points",
        image="color/image_raw",
        camera_info="color/camera_info",
        depth_image="aligned_depth_to_color/image_raw",
        bundle="2026",
        use_sim_time="true",
        params_file=str(tmp_path / "mine.yaml"),
    )
    assert (node["name"], node["namespace"]) == ("points", "front")
    assert node["files"] == [tmp_path / "mine.yaml"]
    # A folder of that name, not a number.
    assert node["values"] == {"use_sim_time": True, "bundle": "2026"}
    assert node["remappings"] == {
        "image": "color/image_raw",
        "camera_info": "color/camera_info",
        "depth": "aligned_depth_to_color/image_raw",
    }


def test_the_launch_file_gives_the_middleware_memory_unless_a_profile_is_set():
    environment = launched()["environment"]
    assert set(environment) == {PROFILE_VARIABLE, OLD_PROFILE_VARIABLE}
    assert set(environment.values()) == {str(PACKAGE / "config" / PROFILE.name)}
    for name in environment:
        assert launched({name: "/mine.xml"})["environment"] == {}


def test_every_parameter_is_an_argument():
    described = launch_double.read_launch_file(LAUNCH / "tracker.launch.py").arguments
    for parameter in PARAMETERS:
        argument = described[parameter.name]
        assert argument.default_value == ""
        assert argument.description.startswith(parameter.description.replace("|", "\\|"))
    own = {
        "namespace",
        "name",
        "image",
        "camera_info",
        "depth_image",
        "use_sim_time",
        "params_file",
    }
    assert described.keys() == own | {parameter.name for parameter in PARAMETERS}


def test_every_parameter_can_be_given():
    """Each at its default, as text; the node then gets a value of the parameter's type."""
    texts = {}
    for parameter in PARAMETERS:
        value = parameter.default
        if value == "":
            continue
        written = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
        texts[parameter.name] = "[left, right]" if parameter.name == "cameras" else written
    values = launched(**texts)["values"]
    for parameter in PARAMETERS:
        if parameter.name in texts:
            assert type(values[parameter.name]) is type(parameter.default), parameter.name
    build_settings({one.name: one.default for one in PARAMETERS} | values)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_gap", "3", 3.0),
        ("max_gap", "1e-1", 0.1),
        ("points", "128", 128),
        ("autostart", "False", False),
        ("cameras", "[left, right]", ["left", "right"]),
        ("region", "[0, 0.25, 1, 1e-1]", [0.0, 0.25, 1.0, 0.1]),
        ("bundle", "2026", "2026"),
        ("bundle", "true", "true"),
    ],
)
def test_texts_become_values_of_the_parameters_type(name, text, value):
    given = launched(**{name: text})["values"][name]
    assert (given, type(given)) == (value, type(value))
    if isinstance(value, list):
        assert [type(one) for one in given] == [type(one) for one in value]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("points", "many"),
        ("points", "1.5"),
        ("autostart", "1"),
        ("max_gap", "x"),
        ("cameras", "a"),
        ("max_gap", "true"),
    ],
)
def test_a_text_of_another_type_is_an_error_that_names_the_argument(name, text):
    with pytest.raises(ValueError, match=f"{name}:={text} must be"):
        launched(**{name: text})


def test_a_realsense_camera_and_the_tracker_meet():
    (camera, node), context = evaluate("realsense.launch.py", camera="front", points="32")
    assert camera.path == SHARES["realsense2_camera"] / "launch" / "rs_launch.py"
    assert (camera.arguments["camera_name"], camera.arguments["align_depth.enable"]) == (
        "front",
        "true",
    )
    given = node.arguments(context)
    assert (given["namespace"], given["values"]["points"]) == ("front/front", 32)
    assert given["remappings"] == {
        "image": "color/image_raw",
        "camera_info": "color/camera_info",
        "depth": "aligned_depth_to_color/image_raw",
    }


def test_two_cameras_share_a_node():
    (node,), context = evaluate("two_cameras.launch.py", right="/stereo/right")
    given = node.arguments(context)
    assert given["values"]["cameras"] == ["left", "right"]
    assert given["remappings"]["left/image"] == "/left/image_raw"
    assert given["remappings"]["right/image"] == "/stereo/right/image_raw"
    assert given["remappings"]["right/camera_info"] == "/stereo/right/camera_info"
    assert PROFILE_VARIABLE in given["environment"]


def test_a_bag_is_played_with_its_clock():
    (node, player), context = evaluate("bag.launch.py", bag="/data/drive", image="/cam/image")
    given = node.arguments(context)
    assert given["values"] == {"use_sim_time": True}
    assert given["remappings"]["image"] == "/cam/image"
    words = [launch_double.text(word, context) for word in player.cmd]
    assert words[:5] == ["ros2", "bag", "play", "/data/drive", "--clock"]
    assert isinstance(player.on_exit, launch_double.Shutdown)


def test_a_lifecycle_manager_has_a_bond_with_the_node():
    (node, manager), context = evaluate("nav2_lifecycle.launch.py", name="points", namespace="nav")
    given, managed = node.arguments(context), manager.arguments(context)
    assert given["values"] == {"use_sim_time": False, "autostart": False, "bond": True}
    assert (given["name"], given["namespace"]) == ("points", "nav")
    # The topic of the bond is relative to the namespace.
    assert managed["namespace"] == "nav"
    assert managed["values"]["node_names"] == ["points"]
    assert managed["values"]["bond_timeout"] > 0
