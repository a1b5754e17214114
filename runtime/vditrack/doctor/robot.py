"""Checks of a robot: board, power mode, ROS, memory and disk."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from vditrack.doctor.child import run_probe
from vditrack.doctor.finding import Finding
from vditrack.doctor.hardware import is_jetson, read_board_name
from vditrack.inference.host_memory import read_host_memory

MIN_FREE_GIB = 0.5
"""Free memory and free disk below which the bundled model may not run or write its results."""
_NO_JETSON = "this machine is not a Jetson"


def check_jetson() -> Iterator[Finding]:
    """Read the name of the board and the version of JetPack."""
    if not is_jetson():
        yield Finding("Jetson", "missing", _NO_JETSON)
        return
    yield Finding("Jetson", "works", read_board_name())
    release = run_probe("machine").result.get("jetpack")
    if release is None or release.startswith("L4T"):
        found = f"{release or 'no release file'}; the package nvidia-jetpack is not installed"
        yield Finding("JetPack", "missing", found, "sudo apt install nvidia-jetpack")
    else:
        yield Finding("JetPack", "works", str(release))


def check_power_mode() -> Iterator[Finding]:
    """Query the power mode with nvpmodel."""
    if not is_jetson():
        yield Finding("power mode", "missing", _NO_JETSON)
        return
    nvpmodel = shutil.which("nvpmodel", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    mode = _query_power_mode(nvpmodel) if nvpmodel else None
    if mode is None:
        yield Finding("power mode", "missing", "nvpmodel does not report it", "sudo nvpmodel -q")
    else:
        yield Finding("power mode", "works", f"{mode}; nvpmodel -m sets another")


def _query_power_mode(nvpmodel: str) -> str | None:
    """Return the mode from a line as in "NV Power Mode: MAXN"."""
    done = subprocess.run([nvpmodel, "-q"], capture_output=True, text=True, timeout=20, check=False)
    for line in done.stdout.splitlines():
        title, _, mode = line.partition(":")
        if title.strip() == "NV Power Mode":
            return mode.strip()
    return None


def check_ros() -> Iterator[Finding]:
    """Find the ROS distribution, and import rclpy with its RMW implementation."""
    distribution = os.environ.get("ROS_DISTRO")
    reply = run_probe("ros")
    if reply.error is None:
        found = f"{distribution or 'ROS_DISTRO is not set'}, {reply.result['rmw']}"
        yield Finding("ROS 2", "works", found)
    elif distribution is not None:
        wanted = os.environ.get("RMW_IMPLEMENTATION", "the default RMW")
        found = f"{distribution} with {wanted} is sourced, but rclpy does not load: {reply.error}"
        yield Finding("ROS 2", "broken", found, _rclpy_remedy(distribution))
    elif reply.absent != "rclpy":
        found = f"rclpy does not load: {reply.error}"
        yield Finding("ROS 2", "broken", found, "source /opt/ros/DISTRIBUTION/setup.bash")
    else:
        yield _report_not_sourced()


def _report_not_sourced() -> Finding:
    installed = sorted(Path("/opt/ros").glob("*/setup.bash"))
    if installed:
        found = f"{installed[-1].parent.name} is installed, but not sourced"
        return Finding("ROS 2", "missing", found, f"source {installed[-1]}")
    found = "not installed; only the ROS node needs it"
    return Finding("ROS 2", "missing", found, "install ROS 2: https://docs.ros.org")


def _rclpy_remedy(distribution: str) -> str:
    rmw = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").replace("_", "-")
    return (
        f"sudo apt install ros-{distribution}-rclpy ros-{distribution}-{rmw}, and run the "
        f"system's own Python: this is {sys.executable}"
    )


def check_memory() -> Iterator[Finding]:
    """Read the free memory."""
    memory = read_host_memory()
    if memory is None:
        yield Finding("memory", "missing", "this system does not report its free memory")
        return
    free, total = memory.available / 2**30, memory.total / 2**30
    limit = ", the limit of this container" if memory.limited else ""
    found = f"{free:.1f} GiB free of {total:.1f}{limit}"
    remedy = "close other programs; `top -o %MEM` lists the largest"
    yield _report_free("memory", free, found, remedy)


def check_disk() -> Iterator[Finding]:
    """Read the free disk space of the current folder."""
    place = Path.cwd()
    free = shutil.disk_usage(place).free / 2**30
    found = f"{free:.1f} GiB free in {place}"
    yield _report_free(
        "disk", free, found, "free some; `du -xh --max-depth 2 ~` lists folder sizes"
    )


def _report_free(name: str, free: float, found: str, remedy: str) -> Finding:
    """Return the finding for ``free`` GiB of memory or disk."""
    if free < MIN_FREE_GIB:
        return Finding(name, "broken", found, remedy)
    return Finding(name, "works", found)
