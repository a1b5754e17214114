"""The machine and the software that a measurement ran on."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np

from vditrack.bench.gpu import read_gpu_names
from vditrack.bench.result import Machine
from vditrack.inference.cpu import count_cores, read_cpu_model

BUSY_LOAD = 0.25
"""Load average per core from which on a machine counts as busy."""


def read_machine() -> Machine:
    """Return the description of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=read_cpu_model(),
        cores=count_cores(),
        cpu_limit=_read_cpu_limit(),
        memory_gib=round(memory / 2**30, 1),
        system=platform.platform(),
        governor=_read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        gpus=read_gpu_names(),
    )


def read_load_average() -> float:
    """Return the mean number of processes that ran or waited to run in the last minute."""
    return os.getloadavg()[0]


def format_load_warning(machine: Machine, load: float) -> str | None:
    """Return a warning if the load average shows that the machine did other work, else None."""
    if load < BUSY_LOAD * machine.cores:
        return None
    return (
        f"the machine was busy at the start: load average {load:.2f} on {machine.cores} "
        "cores. Other work slows the measurement. Stop it and measure again."
    )


def read_versions(backend: str) -> dict[str, str]:
    """Return the versions of the software in use, after a tracker was loaded on ``backend``."""
    engine = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}.get(backend, "onnxruntime")
    return {
        "python": platform.python_version(),
        "vditrack": metadata.version("vditrack"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        engine: str(sys.modules[engine].__version__),
    }


def read_peak_memory_mib() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    # Windows has no such module, and imports this one for the other verbs.
    import resource  # noqa: PLC0415

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # KiB on Linux, bytes on macOS.
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _read_cpu_limit() -> float | None:
    """Return the CPU quota of the control group (version 2), in cores; None without one."""
    # CPU time and period, both in microseconds.
    quota, _, period = (_read_text("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _read_text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
