"""The package vditrack_msgs: its interfaces, built as on a robot and used by a running node."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from doubles.ros_loopback import PATIENCE, Process
from doubles.ros_packages import build_package, missing_tools

PACKAGE = Path(__file__).parents[2] / "ros2_msgs"
INTERFACES = sorted(
    path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("*/*.*") if path.suffix != ".md"
)
VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": """
        vision_msgs/ObjectHypothesis hypothesis
        geometry_msgs/PoseWithCovariance pose
    """,
    "Detection2D": """
        std_msgs/Header header
        vision_msgs/ObjectHypothesisWithPose[] results
        vision_msgs/BoundingBox2D bbox
        string id
    """,
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}
"""Fields of vision_msgs 4.0 and 4.1, those of Humble and of all later distributions."""


CHECK = """
import pathlib, sys
from rosidl_adapter import convert_to_idl
from rosidl_parser.definition import IdlLocator
from rosidl_parser.parser import parse_idl_file
package, folder, *interfaces = map(pathlib.Path, sys.argv[1:])
for interface in interfaces:
    convert_to_idl(package, "vditrack_msgs", interface, folder)
    locator = IdlLocator(folder, interface.with_suffix(".idl"))
    assert parse_idl_file(locator).content.elements
"""


def test_interfaces_are_valid(tmp_path):
    """In a process of its own: the adapter replaces its output stream."""
    command = [sys.executable, "-c", CHECK, PACKAGE, tmp_path, *INTERFACES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_build_has_all_interfaces():
    assert re.findall(r'"(\w+/\w+\.\w+)"', (PACKAGE / "CMakeLists.txt").read_text()) == INTERFACES
    listed = re.findall(r"\]\(((?:msg|srv)/[\w.]+)\)", (PACKAGE / "README.md").read_text())
    assert sorted(set(listed)) == INTERFACES


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_field_is_explained(interface):
    """A comment stands above each field, or above the fields that follow each other, or beside."""
    explained = False
    for line in (PACKAGE / interface).read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif line.strip() in ("", "---"):
            explained = False
        else:
            assert explained or "#" in line, line


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_tools()), reason=f"not here: {missing_tools()}")
def test_a_robot_uses_the_packages(mask_bundle, tmp_path):
    """Both packages are built by CMake; vision_msgs, which is no wheel, from its fields."""
    vision = tmp_path / "vision_msgs"
    (vision / "msg").mkdir(parents=True)
    for name, fields in VISION_MSGS.items():
        (vision / "msg" / f"{name}.msg").write_text(textwrap.dedent(fields).strip() + "\n")
    for name in ("CMakeLists.txt", "package.xml"):
        text = (PACKAGE / name).read_text().replace("vditrack_msgs", "vision_msgs")
        listed = "\n".join(f'  "msg/{one}.msg"' for one in VISION_MSGS)
        text = re.sub(r'(  "\w+/\w+\.\w+"\n)+', listed + "\n", text)
        (vision / name).write_text(text)
    for source in (vision, PACKAGE):
        environment = build_package(source, tmp_path)
    options = {"mode": "both", "bundle": mask_bundle, "points": 20, "max_age": 0.0}
    given = [part for name, value in options.items() for part in ("-p", f"{name}:={value}")]
    command = [sys.executable, "-m", "vditrack_ros.main", "--ros-args", *given]
    node = Process(command, tmp_path / "node.log", **environment)
    robot = Path(__file__).parents[1] / "doubles" / "ros_robot.py"
    try:
        environment = {**os.environ, **environment}
        done = subprocess.run(
            [sys.executable, robot],
            env=environment,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:] + node.log[-3000:]
    finally:
        node.end()
    told = json.loads(done.stdout)
    assert (told["points"], told["frame"], told["point"]) == (20, "camera", [True, True, 0, False])
    assert told["position"] == "nan"
    assert (told["ids"], told["success"]) == ([5, 0], False) and "is no box" in told["reasons"][1]
    assert (told["id"], told["class"]) == ("5", "object") and 0.5 < told["score"] <= 1
    assert told["box"] == pytest.approx([60, 44, 40, 40], abs=12)
    assert told["removed"] == [True, False]
