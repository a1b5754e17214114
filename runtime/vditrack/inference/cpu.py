"""The CPU of this machine: its name, its cores, and its instructions for INT8."""

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = {
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "asimddp": "Arm dot product",
}
"""Names in ``/proc/cpuinfo`` of the instructions that add products of 8 bits in 32 bits."""
_MACOS_VALUES = {
    "hw.optional.arm.FEAT_DotProd: 1": "Arm dot product",
    "AVX512VNNI": "AVX512-VNNI",
}
"""The same in what ``sysctl`` prints on macOS."""
_SYSCTL = ("sysctl", "hw.optional.arm.FEAT_DotProd", "machdep.cpu.leaf7_features")


@cache
def find_int8_instructions() -> str | None:
    """Return the name of this CPU's INT8 dot products; None if it has none that is known.

    An x86 CPU without them adds products of 8 bits in 16 bits, which saturates. Known are CPUs on
    Linux and macOS. Every core has to have the instructions.
    """
    if sys.platform == "darwin":
        return _find_in_sysctl(_run_sysctl())
    return find_in_cpu_info(_read(_CPU_INFO))


def find_in_cpu_info(text: str) -> str | None:
    """Return the INT8 instructions that every core has by the content of ``/proc/cpuinfo``."""
    # x86 lists flags, Arm features.
    cores = [
        set(values.split())
        for name, _, values in (line.partition(":") for line in text.splitlines())
        if name.strip() in {"flags", "Features"}
    ]
    common = set.intersection(*cores) if cores else set()
    return next((title for flag, title in _INSTRUCTIONS.items() if flag in common), None)


def _find_in_sysctl(text: str) -> str | None:
    return next((title for value, title in _MACOS_VALUES.items() if value in text), None)


def _run_sysctl() -> str:
    """Return what is printed of the values that this machine has; the others are errors."""
    try:
        done = subprocess.run(_SYSCTL, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def read_cpu_model() -> str:
    """Return the name of the CPU; on Arm, where cores do not report one, that of the board."""
    for line in _read(_CPU_INFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    board = _read(Path("/proc/device-tree/model")).strip()
    return board.rstrip("\0") or platform.processor() or platform.machine()


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
