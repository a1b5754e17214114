"""What a robot brings: the board, its power mode, ROS, memory and disk."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from vditrack.doctor.child import ask
from vditrack.doctor.finding import Finding
from vditrack.doctor.hardware import board, is_jetson, text

LEAST_FREE = 0.5
"""GiB of memory, and of disk, below which the bundled model may not run or write its results."""
_NO_JETSON = "this is no Jetson"


def jetson() -> Iterator[Finding]:
    """Find the board and its JetPack."""
    if not is_jetson():
        yield Finding("Jetson", "missing", _NO_JETSON)
        return
    yield Finding("Jetson", "works", board())
    release = ask("machine").told.get("jetpack")
    if release is None or release.startswith("L4T"):
        found = f"{release or 'no release file'}; the package nvidia-jetpack is not installed"
        yield Finding("JetPack", "missing", found, "sudo apt install nvidia-jetpack")
    else:
        yield Finding("JetPack", "works", str(release))


def power_mode() -> Iterator[Finding]:
    """Ask nvpmodel."""
    if not is_jetson():
        yield Finding("power mode", "missing", _NO_JETSON)
        return
    nvpmodel = shutil.which("nvpmodel", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    mode = _power_mode(nvpmodel) if nvpmodel else None
    if mode is None:
        yield Finding("power mode", "missing", "nvpmodel does not tell", "sudo nvpmodel -q")
    else:
        yield Finding("power mode", "works", f"{mode}; nvpmodel -m sets another")


def _power_mode(nvpmodel: str) -> str | None:
    """Mode, of a line as in "NV Power Mode: MAXN"."""
    done = subprocess.run([nvpmodel, "-q"], capture_output=True, text=True, timeout=20, check=False)
    for line in done.stdout.splitlines():
        title, _, mode = line.partition(":")
        if title.strip() == "NV Power Mode":
            return mode.strip()
    return None


def ros() -> Iterator[Finding]:
    """Find the ROS distribution, and import rclpy with its RMW."""
    distribution = os.environ.get("ROS_DISTRO")
    reply = ask("ros")
    if reply.error is None:
        found = f"{distribution or 'ROS_DISTRO is not set'}, {reply.told['rmw']}"
        yield Finding("ROS 2", "works", found)
    elif distribution is not None:
        wanted = os.environ.get("RMW_IMPLEMENTATION", "the default RMW")
        found = f"{distribution} with {wanted} is sourced, and rclpy does not load: {reply.error}"
        yield Finding("ROS 2", "broken", found, _rclpy(distribution))
    elif reply.absent != "rclpy":
        found = f"rclpy does not load: {reply.error}"
        yield Finding("ROS 2", "broken", found, "source /opt/ros/DISTRIBUTION/setup.bash")
    else:
        yield _not_sourced()


def _not_sourced() -> Finding:
    installed = sorted(Path("/opt/ros").glob("*/setup.bash"))
    if installed:
        found = f"{installed[-1].parent.name} is installed, and not sourced"
        return Finding("ROS 2", "missing", found, f"source {installed[-1]}")
    found = "not installed; only the ROS node needs it"
    return Finding("ROS 2", "missing", found, "install ROS 2: https://docs.ros.org")


def _rclpy(distribution: str) -> str:
    rmw = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").replace("_", "-")
    return (
        f"sudo apt install ros-{distribution}-rclpy ros-{distribution}-{rmw}, and run the "
        f"system's own Python: this is {sys.executable}"
    )


def memory() -> Iterator[Finding]:
    """Find how much memory can still be taken."""
    lines = (line.partition(":") for line in text(Path("/proc/meminfo")).splitlines())
    amounts = {name: value.split()[0] for name, _, value in lines if value.strip()}
    if "MemAvailable" not in amounts:
        yield Finding("memory", "missing", "this system does not tell how much is free")
        return
    free, total = (int(amounts[name]) / 2**20 for name in ("MemAvailable", "MemTotal"))
    found = f"{free:.1f} GiB free of {total:.1f}"
    if free < LEAST_FREE:
        yield Finding("memory", "broken", found, "close other programs; `top -o %MEM` tells which")
    else:
        yield Finding("memory", "works", found)


def disk() -> Iterator[Finding]:
    """Find how much may still be written where one is."""
    place = Path.cwd()
    free = shutil.disk_usage(place).free / 2**30
    found = f"{free:.1f} GiB free in {place}"
    if free < LEAST_FREE:
        yield Finding(
            "disk", "broken", found, "free some; `du -xh --max-depth 2 ~` names the large"
        )
    else:
        yield Finding("disk", "works", found)
