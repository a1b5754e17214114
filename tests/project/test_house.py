"""What an installed package may import, and which command it installs."""

import shutil
import subprocess
import sys
from pathlib import Path


def test_the_runtime_imports_nothing_heavy():
    """What a robot does not have is not even tried: imported anew, with all modules listed."""
    code = "import sys, vditrack, vditrack.cli.app; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in listed.stdout.split()}
    assert "numpy" in loaded
    assert not loaded & {"torch", "diffusers", "onnx", "rclpy", "skvideo", "vditrack_export"}


def test_the_command_is_on_the_path():
    assert shutil.which("vditrack", path=str(Path(sys.executable).parent))
