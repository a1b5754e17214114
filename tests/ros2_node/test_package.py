"""The ROS package: what colcon installs, and what its files say."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
import rclpy
import yaml

from doubles.ros_loopback import PATIENCE, Process
from vditrack_ros.counters import ImageCounters
from vditrack_ros.diagnostics import CameraState, build_camera_report, summarize_points
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.parameters.table import PARAMETERS
from vditrack_ros.transport.fastdds import PROFILE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ros2_node"
PARAMETERS_PAGE = (ROOT / "docs" / "ros-parameters.md").read_text()
TOPICS_PAGE = (ROOT / "docs" / "ros-topics.md").read_text()
# What is there or not: not a dependency. rosdep has no key for vditrack.
OPTIONAL = {"foxglove_msgs", "vditrack_msgs", "vision_msgs"}


def described() -> dict:
    return runpy.run_path(str(PACKAGE / "describe_parameters.py"))


def modules_imported(*files: Path) -> set[str]:
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return {name.split(".")[0] for name in found}


def test_the_table_of_parameters_is_that_of_the_descriptors():
    assert described()["update_page"](PARAMETERS_PAGE) == PARAMETERS_PAGE, (
        "run ros2_node/describe_parameters.py"
    )


def test_the_file_of_defaults_is_that_of_the_descriptors():
    written = (PACKAGE / "config" / "tracker.yaml").read_text()
    assert written == described()["render_config"](), "run ros2_node/describe_parameters.py"


def test_ros_reads_the_file_of_defaults_as_the_defaults():
    """By rcl's own parser, as a node is given it."""
    file = PACKAGE / "config" / "tracker.yaml"
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
    try:
        node = rclpy.create_node(
            "any_name",
            namespace="any/space",
            context=context,
            start_parameter_services=False,
            automatically_declare_parameters_from_overrides=True,
        )
        read = {
            parameter.name: node.get_parameter(parameter.name).value for parameter in PARAMETERS
        }
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    assert read == {parameter.name: parameter.default for parameter in PARAMETERS}
    assert all(type(read[parameter.name]) is type(parameter.default) for parameter in PARAMETERS)


def topics_told() -> set[str]:
    """Topics in the page's tables, of a node named tracker without a namespace."""
    names = re.findall(r"^\| `(~?/?[a-z_/]+)` \|", TOPICS_PAGE, re.MULTILINE)
    return {f"/tracker/{name[2:]}" if name[0] == "~" else f"/{name.lstrip('/')}" for name in names}


def test_layouts_show_topics_that_there_are():
    text = (PACKAGE / "rviz" / "vditrack.rviz").read_text()
    manager = yaml.safe_load(text)["Visualization Manager"]
    shown = {
        one["Topic"]["Value"] for one in [*manager["Displays"], *manager["Tools"]] if "Topic" in one
    }
    panels = json.loads((PACKAGE / "foxglove" / "vditrack.json").read_text())["configById"]
    shown |= set(re.findall(r"/(?:tracker/)?[a-z_]+(?=[\"'.])", json.dumps(panels)))
    assert {"/image", "/tracker/tracks", "/tracker/add_point", "/diagnostics"} <= shown
    assert shown <= topics_told()


def test_the_foxglove_layout_plots_what_diagnostics_say():
    layout = (PACKAGE / "foxglove" / "vditrack.json").read_text()
    plotted = re.findall(r'name==\\"(.+?)\\".+?key==\\"(.+?)\\"', layout)
    assert plotted
    state, followed = CameraState("/image", 1, False, True, ""), summarize_points(0, 0, None)
    settings = Settings(**{one.name: one.default for one in PARAMETERS})
    told = build_camera_report(ImageCounters(started=0.0), state, followed, settings, 1.0).values
    assert {name for name, _ in plotted} == {"tracker: camera"}
    assert {key for _, key in plotted} <= told.keys()


def test_the_foxglove_layout_arranges_the_panels_it_has():
    layout = json.loads((PACKAGE / "foxglove" / "vditrack.json").read_text())

    def leaves(tree):
        return [tree] if isinstance(tree, str) else leaves(tree["first"]) + leaves(tree["second"])

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])


@pytest.fixture(scope="module")
def colcon(tmp_path_factory) -> Path:
    """The programs of an environment of colcon's own: it wants plug-ins of pytest, and others."""
    folder = tmp_path_factory.mktemp("colcon")
    venv.create(folder)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder]
    wanted = ["colcon-core", "colcon-ros", "colcon-bash", "foxglove-sdk"]
    run(*pip, "install", "--quiet", "--no-compile", *wanted)
    return folder / "bin"


def run(*command: object, **options) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


READ_MANIFEST = """
import json, sys
from catkin_pkg.package import parse_package
package = parse_package(sys.argv[1], warnings=(warnings := []))
package.validate(warnings=warnings)
print(json.dumps({
    "name": package.name, "version": package.version, "format": package.package_format,
    "licenses": package.licenses, "build": package.get_build_type(), "warnings": warnings,
    "depends": [depend.name for depend in package.exec_depends],
    "test_depends": [depend.name for depend in package.test_depends],
    "urls": [(url.type, url.url) for url in package.urls],
    "maintainers": [maintainer.email for maintainer in package.maintainers],
}))
"""


@pytest.mark.slow
def test_the_manifest_is_valid_and_names_what_is_imported(colcon):
    manifest = json.loads(run(colcon / "python", "-c", READ_MANIFEST, PACKAGE / "package.xml"))
    assert manifest["warnings"] == []
    assert (manifest["name"], manifest["format"]) == ("vditrack_ros", 3)
    assert manifest["build"] == "ament_python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manifest["version"] == project["version"]
    assert manifest["licenses"] == [project["license"]]

    sources = [*(PACKAGE / "vditrack_ros").rglob("*.py"), *(PACKAGE / "launch").glob("*.py")]
    outside = modules_imported(*sources) - set(sys.stdlib_module_names)
    known = {"vditrack", "vditrack_ros", "numpy", "cv2"}
    keys = {"yaml": "python3-yaml"}
    needed = {keys.get(name, name) for name in outside - known - OPTIONAL}
    assert sorted(manifest["depends"]) == sorted(needed)
    assert {kind for kind, _ in manifest["urls"]} == {"website", "repository", "bugtracker"}
    assert set(dict(manifest["urls"]).values()) <= set(project["urls"].values())
    (address,) = manifest["maintainers"]
    assert address in (PACKAGE / "setup.py").read_text()
    assert not address.endswith(".invalid")
    assert manifest["test_depends"] == ["python3-pytest"]


CHECK_PANELS = """
import dataclasses, json, sys
from foxglove import layouts
PANELS = {
    "Image": layouts.ImageConfig, "3D": layouts.ThreeDeeConfig, "Plot": layouts.PlotConfig,
    "DiagnosticSummary": layouts.DiagnosticsSummaryConfig,
}
PARTS = {
    "imageMode": layouts.ImageModeConfig, "paths": layouts.PlotSeries,
    ("imageMode", "publish"): layouts.ImageModePublishConfig,
    ("3D", "publish"): layouts.ThreeDeePublishSettings,
    "topics": layouts.BaseRendererPointCloudTopicSettings,
    "annotations": layouts.ImageAnnotationSettings,
}
def check(kind, config, where):
    empty = {f.name: None for f in dataclasses.fields(kind)}
    known = {*kind(**empty)._to_dict(), "foxglovePanelTitle"}
    assert set(config) <= known, (where, set(config) - known)
    for key, value in config.items():
        part = PARTS.get((where, key)) or PARTS.get(key)
        if part is None:
            continue
        for one in value if isinstance(value, list) else (
            value.values() if key in ("topics", "annotations") else [value]
        ):
            check(part, one, key)
for name, config in json.load(open(sys.argv[1]))["configById"].items():
    panel = name.split("!")[0]
    check(PANELS[panel], config, panel)
"""


@pytest.mark.slow
def test_foxglove_knows_all_that_its_layout_sets(colcon):
    run(colcon / "python", "-c", CHECK_PANELS, PACKAGE / "foxglove" / "vditrack.json")


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--symlink-install"]], ids=["copied", "linked"])
def test_colcon_installs_the_package(colcon, tmp_path, options):
    workspace = tmp_path / "workspace"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(PACKAGE, workspace / "src" / "vditrack_ros", ignore=ignored)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run(colcon / "colcon", "build", *options, cwd=workspace, env=clean)

    installed = workspace / "install" / "vditrack_ros"
    share = installed / "share" / "vditrack_ros"
    marker = installed / "share" / "ament_index" / "resource_index" / "packages" / "vditrack_ros"
    assert marker.is_file()
    shared = [path for path in PACKAGE.glob("[clrf]*/*.*") if path.suffix != ".pyc"]
    assert {path.parent.name for path in shared} == {"launch", "config", "rviz", "foxglove"}
    for path in [*shared, PACKAGE / "package.xml"]:
        assert (share / path.relative_to(PACKAGE)).read_bytes() == path.read_bytes()
    assert (share / "config" / PROFILE.name).read_bytes() == PROFILE.read_bytes()

    program = installed / "lib" / "vditrack_ros" / "vditrack-node"
    assert os.access(program, os.X_OK)
    if not options:
        # The Python of the environment that is active runs it, not colcon's.
        assert program.read_text().splitlines()[0] == "#!/usr/bin/env python3"

    # As a user does: the set-up file, then the node in the environment that has vditrack.
    setup = workspace / "install" / "setup.bash"
    start = f". {setup} && exec python3 {program} --ros-args -r __ns:=/camera"
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    node = Process(["bash", "-c", start], tmp_path / "log", PATH=paths)
    try:
        end = time.monotonic() + PATIENCE
        while "Listening on /camera/image" not in node.log:
            assert node.alive and time.monotonic() < end, node.log
            time.sleep(0.05)
        assert node.stop() == 0
    finally:
        node.end()
