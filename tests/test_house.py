"""The rules of the house: format, lint, types, and which unit may import which."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON_MODULES = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
}


@pytest.mark.parametrize("rule", PYTHON_MODULES)
def test_rule(rule):
    command = [sys.executable, "-m", *PYTHON_MODULES[rule]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_go_one_way():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_runtime_imports_nothing_heavy():
    """What a robot does not have is not even tried: imported anew, with all modules listed."""
    code = "import sys, vditrack, vditrack.cli; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in listed.stdout.split()}
    assert "numpy" in loaded
    assert not loaded & {"torch", "diffusers", "onnx", "rclpy", "skvideo", "vditrack_export"}


def test_the_command_is_on_the_path():
    assert shutil.which("vditrack", path=str(Path(sys.executable).parent))
