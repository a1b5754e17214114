"""The node's parameters: what they may be, as declared in ROS and when set."""

import dataclasses
import math
from itertools import pairwise

import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter as Set

import doubles.ros_loopback  # noqa: F401  (sets the middleware up before rclpy joins it)
from vditrack.errors import InputError
from vditrack_ros.parameters.declaration import DeclaredParameters
from vditrack_ros.parameters.settings import Settings, build_settings
from vditrack_ros.parameters.table import PARAMETERS

DEFAULTS = {parameter.name: parameter.default for parameter in PARAMETERS}
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def test_defaults_are_allowed():
    assert build_settings(DEFAULTS) == Settings(
        **{**DEFAULTS, "cameras": ("",), "region": (0, 0, 1, 1)}
    )


def test_settings_have_one_field_a_parameter():
    assert [field.name for field in dataclasses.fields(Settings)] == list(DEFAULTS)


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_each_is_described_and_refuses_what_it_may_not_be(parameter):
    assert parameter.description.endswith(".")
    wrong = [None, b"x", {}, [1], 7 if isinstance(parameter.default, (str, bool, list)) else "7"]
    if isinstance(parameter.default, int):
        wrong.append(0.5)
    if parameter.choices:
        wrong.append("no such")
    if parameter.range is not None:
        low, high = parameter.range
        step = type(parameter.default)(1)
        wrong += [low - step, high + step]
        assert parameter.validate(type(parameter.default)(low)) == low
        assert parameter.validate(type(parameter.default)(high)) == high
    if isinstance(parameter.default, float):
        wrong += [math.nan, math.inf, True]
    for value in wrong:
        with pytest.raises(InputError, match=parameter.name) as refused:
            parameter.validate(value)
        assert parameter.allowed in str(refused.value)


def test_whole_number_serves_as_a_real_one():
    assert type(BY_NAME["max_age"].validate(1)) is float


@pytest.mark.parametrize(
    "names", [[], ["left", "left"], ["/left"], ["le ft"], ["left/"], ["2nd"], [""] * 2]
)
def test_names_of_cameras_that_no_topic_can_have(names):
    with pytest.raises(InputError, match="camera"):
        BY_NAME["cameras"].validate(names)


@pytest.mark.parametrize(
    "region",
    [
        *([], [0, 0, 1], [0, 0, 0, 1], [0, 0, 1, -1], [-0.1, 0, 1, 1], [0.5, 0, 0.6, 1]),
        *([0, math.nan, 1, 1], [0, 0, math.inf, 9], [0, 0, True, 1], ["0", 0, 1, 1], 1.0),
    ],
)
def test_regions_that_no_image_has(region):
    with pytest.raises(InputError, match="region"):
        BY_NAME["region"].validate(region)


def test_regions_in_shares_and_in_pixels():
    for region in ([0.5, 0, 0.5, 1], [100, 20, 640, 1], (0, 0, 1, 1)):
        validated = BY_NAME["region"].validate(region)
        assert validated == list(region)
        assert {type(part) for part in validated} == {float}


def test_names_of_cameras_that_topics_can_have():
    assert BY_NAME["cameras"].validate(("", "left", "arm/wrist_2")) == ["", "left", "arm/wrist_2"]


def test_values_that_contradict_each_other():
    with pytest.raises(InputError, match="max_points"):
        build_settings({**DEFAULTS, "points": 600, "max_points": 500})
    with pytest.raises(InputError, match="error_latency"):
        build_settings({**DEFAULTS, "warn_latency": 2.0, "error_latency": 1.0})


@pytest.fixture
def declared():
    """Declare with what was given at start."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def declare(**given):
        overrides = [Set(name, value=value) for name, value in given.items()]
        node = Node(
            "tracker",
            context=context,
            parameter_overrides=overrides,
            automatically_declare_parameters_from_overrides=True,
        )
        nodes.append(node)
        return node, DeclaredParameters(node)

    yield declare
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_declared_with_ranges_and_descriptions(declared):
    node, parameters = declared()
    assert parameters.read_settings() == build_settings(DEFAULTS)
    for parameter in PARAMETERS:
        told = node.describe_parameter(parameter.name)
        assert told.description == parameter.description
        assert parameter.allowed[1:] in told.additional_constraints
        ranges = [*told.integer_range, *told.floating_point_range]
        bounds = [(found.from_value, found.to_value) for found in ranges]
        assert bounds == ([] if parameter.range is None else [parameter.range])


def test_given_at_start(declared):
    _, parameters = declared(points=7, max_age=2, cameras=["left", "right"], population="none")
    settings = parameters.read_settings()
    assert (settings.points, settings.max_age, settings.population) == (7, 2.0, "none")
    assert settings.cameras == ("left", "right")


def test_wrong_at_start_is_told_until_it_is_set_right(declared):
    node, parameters = declared(points="many", reliability="sometimes")
    with pytest.raises(InputError, match=r"reliability.*best_effort.*points is 'many'.*integer"):
        parameters.read_settings()
    for name, value in (("points", 5), ("reliability", "reliable")):
        parameters.check_changes([Set(name, value=value)], None)
        node.set_parameters([Set(name, value=value)])
    assert parameters.read_settings().points == 5


def test_unknown_at_start_is_ignored(declared):
    node, parameters = declared(pionts=7, use_sim_time=True)
    assert parameters.read_settings().points == DEFAULTS["points"]
    assert not node.has_parameter("pionts")
    assert node.get_parameter("use_sim_time").value is True


def test_fixed_while_configured(declared):
    _, parameters = declared()
    current = parameters.read_settings()
    changed = {int: 65, str: "x"}
    lists = {"cameras": ["left"], "region": [0.0, 0.0, 320.0, 240.0]}
    for parameter in PARAMETERS:
        if isinstance(parameter.default, float):
            value = 0.4 if parameter.range[0] < 0.4 else 0.75
        elif isinstance(parameter.default, bool):
            value = not parameter.default
        elif isinstance(parameter.default, list):
            value = lists[parameter.name]
        else:
            value = parameter.choices[-1] if parameter.choices else changed[type(parameter.default)]
        change = [Set(parameter.name, value=value)]
        if parameter.live:
            after = getattr(parameters.check_changes(change, current), parameter.name)
            assert after == (tuple(value) if isinstance(value, list) else value)
        else:
            with pytest.raises(InputError, match=f"{parameter.name} cannot be set now"):
                parameters.check_changes(change, current)
    # A file with all parameters may be loaded again.
    same = [Set(name, value=value) for name, value in DEFAULTS.items()]
    assert parameters.check_changes(same, current) == current


def test_contradictions_are_refused_while_configured(declared):
    _, parameters = declared()
    current = parameters.read_settings()
    with pytest.raises(InputError, match="max_points"):
        parameters.check_changes([Set("points", value=1000)], current)
    both = [Set("points", value=1000), Set("max_points", value=2000)]
    assert parameters.check_changes(both, current).points == 1000


def test_defaults_warn_before_they_err():
    latencies = [DEFAULTS[name] for name in ("warn_latency", "error_latency")]
    assert all(one < other for one, other in pairwise(latencies))
