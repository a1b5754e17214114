"""The machine and the programs that a measurement ran on."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np

from vditrack.bench.gpu import gpu_names
from vditrack.bench.result import Machine

BUSY = 0.25
"""Load average, as a share of the cores, from which on a machine counts as busy."""


def read_machine() -> Machine:
    """Describe this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu_model(),
        cores=_cores(),
        cpu_limit=_cpu_limit(),
        memory_gib=round(memory / 2**30, 1),
        system=platform.platform(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        gpus=gpu_names(),
    )


def load_average() -> float:
    """Processes that ran or waited to, as a mean over the last minute."""
    return os.getloadavg()[0]


def busy(machine: Machine, load: float) -> str | None:
    """Warn of a machine that was doing something else."""
    if load < BUSY * machine.cores:
        return None
    return (
        f"the machine was busy at the start: load average {load:.2f} on {machine.cores} "
        "cores. The figures are of a machine that is shared."
    )


def versions(backend: str) -> dict[str, str]:
    """Versions of the programs that do the work, once a tracker was loaded on that backend."""
    engine = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}.get(backend, "onnxruntime")
    return {
        "python": platform.python_version(),
        "vditrack": metadata.version("vditrack"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        engine: str(sys.modules[engine].__version__),
    }


def peak_resident_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    # Windows has no such module, and imports this one for the other verbs.
    import resource  # noqa: PLC0415

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB on Linux, bytes on macOS.
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _cpu_model() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    # Arm cores do not name themselves; the board that they are on does.
    board = _read("/proc/device-tree/model")
    return board.rstrip("\0") if board else platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_limit() -> float | None:
    """Read the quota of the control group (version 2): microseconds of CPU time a period."""
    quota, _, period = (_read("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
