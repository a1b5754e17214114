"""The wheel in an empty environment, on the Pythons of robots: complete, light and working."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vditrack.io.video import write_video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# JetPack 6 and ROS 2 Humble are on the first, Jazzy and Kilted on the second.
VERSIONS = ("3.10", "3.12")


def interpreters() -> dict[str, str]:
    """Pythons that start, by version: from the path or pyenv, or the one that runs the test."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, str] = {}
    for version in VERSIONS:
        installed = sorted(str(path) for path in pyenv.glob(f"{version}.*/bin/python"))
        for candidate in [*installed, shutil.which(f"python{version}")]:
            if candidate and version not in found and starts(candidate, version):
                found[version] = candidate
    return found or {"this": sys.executable}


def starts(python: str, version: str) -> bool:
    # The path may hold a version manager's shim for a Python that is not installed.
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Build from the source archive, so that no old build/ gets in and the archive is tested too.
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(folder.glob("*.whl"))


def test_wheel_has_every_file_of_the_packages(wheel):
    expected = set()
    for package in ("runtime/vditrack", "export/vditrack_export", "ros2_node/vditrack_ros"):
        unit = (ROOT / package).parent
        files = (path for path in (ROOT / package).rglob("*") if path.is_file())
        expected |= {str(path.relative_to(unit)) for path in files if path.suffix != ".pyc"}
    assert len(expected) > 300
    with zipfile.ZipFile(wheel) as archive:
        assert not expected - set(archive.namelist())


@pytest.mark.parametrize("version", interpreters())
def test_wheel_in_an_empty_environment(wheel, tmp_path, version):
    environment = tmp_path / "environment"
    subprocess.run([interpreters()[version], "-m", "venv", environment], check=True)
    python, vditrack = environment / "bin" / "python", environment / "bin" / "vditrack"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-compile", f"{wheel}[cpu]"], check=True)
    listed = json.loads(output_of(*pip, "list", "--format", "json"))
    names = {package["name"].lower() for package in listed}
    assert not names & {"torch", "diffusers", "transformers", "onnx", "scipy", "matplotlib"}

    manifest = json.loads(output_of(vditrack, "inspect", "--json", cwd=tmp_path))
    assert manifest["source"]["card"] == "tiny"
    ramp = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)
    frames = [np.roll(np.stack([ramp] * 3, axis=-1), 2 * t, axis=1) for t in range(5)]
    write_video(tmp_path / "clip.mp4", frames, np.arange(5) / 10)
    done = json.loads(
        output_of(vditrack, "track", "clip.mp4", "--grid", "2", "--json", cwd=tmp_path)
    )
    assert (done["frames"], done["points"]) == (5, 4)
    assert sorted(path.name for path in (tmp_path / "clip_tracks").iterdir()) == [
        "overlay.mp4",
        "tracks.csv",
        "tracks.npz",
    ]
    refused = subprocess.run(
        [vditrack, "export", "tiny", "--weights", tmp_path, "-o", tmp_path / "b"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    # pip takes the wheel that it was installed from.
    assert f"pip install '{wheel}[export" in refused.stderr


def output_of(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout
