"""GPUs as NVIDIA's management library (NVML) reports them, where it is installed."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def read_gpu_names() -> tuple[str, ...]:
    """Return the names of the GPUs; empty without NVML or a driver."""
    return _query(lambda nvml: tuple(map(nvml.nvmlDeviceGetName, _list_devices(nvml)))) or ()


def read_gpu_memory_mib() -> float | None:
    """Return the memory that this process uses on all GPUs, in MiB.

    None without NVML or a driver, and where NVML does not list this process or its memory: in a
    container with process numbers of its own, and where no GPU is in use.
    """
    return _query(_sum_memory_of_this_process)


def _sum_memory_of_this_process(nvml: Any) -> float | None:  # noqa: ANN401 - it ships no types
    used = [
        process.usedGpuMemory
        for device in _list_devices(nvml)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(device)
        if process.pid == os.getpid() and process.usedGpuMemory is not None
    ]
    return float(sum(used) / 2**20) if used else None


def _list_devices(nvml: Any) -> list[Any]:  # noqa: ANN401
    return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]


def _query(question: Callable[[Any], Answer]) -> Answer | None:
    """Return the library's answer; None where it is missing, has no driver or fails."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return question(nvml)
    except nvml.NVMLError:
        return None
