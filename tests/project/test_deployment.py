"""Files for containers, services and CI: what can be checked without running them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SERVICE = ROOT / "ros2_node" / "systemd" / "vditrack.service"
PAGE = (ROOT / "docs" / "ros-deploy.md").read_text()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_and_install_what_there_is(path):
    text = path.read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists()
    for package in re.findall(r"/opt/vditrack/(\S+) /opt/workspace/src", text):
        assert (ROOT / package / "package.xml").is_file()
    named = re.findall(r"vditrack\[([a-z,-]+)\]", text) + re.findall(r"EXTRAS=([a-z,-]+)", text)
    assert named
    assert set(",".join(named).split(",")) <= EXTRAS.keys()


def test_what_the_image_leaves_out_is_not_installed():
    """The build context has all that pip reads."""
    ignored = set((ROOT / ".dockerignore").read_text().split())
    folders = {"runtime", "models", "export", "ros2_node", "ros2_msgs", "docker"}
    assert not ignored & {*folders, "README.md", "LICENSE", "pyproject.toml"}


def test_jazzys_wheels_are_those_of_kilted():
    names = {
        extra: {re.match(rf"ros-{extra}-([a-z-]+)", one)[1] for one in EXTRAS[key]}
        for extra, key in (("kilted", "ros"), ("jazzy", "ros-jazzy"))
    }
    assert names["kilted"] == names["jazzy"]


def test_the_workflow_has_a_job_for_each_distribution_of_the_page():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ros.yml").read_text())
    matrix = workflow["jobs"]["distribution"]["strategy"]["matrix"]["include"]
    listed = re.findall(r"^\| (Humble|Jazzy|Kilted|Lyrical) \|.*\| ([12]) \|$", PAGE, re.MULTILINE)
    assert [(one["distribution"], one["numpy"] == "numpy>=2") for one in matrix] == [
        (name.lower(), numpy == "2") for name, numpy in listed
    ]


def test_the_environment_file_sets_what_the_service_reads():
    start = re.search(r"^ExecStart=(.*)$", SERVICE.read_text(), re.MULTILINE)[1]
    settings = (SERVICE.with_name("environment")).read_text()
    for name in set(re.findall(r"\$([A-Z_]+)", start)):
        assert re.search(rf"^{name}=.", settings, re.MULTILINE), name


def test_systemd_accepts_the_service():
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(
        [program, "verify", "--man=no", SERVICE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
