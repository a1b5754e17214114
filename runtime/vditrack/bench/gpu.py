"""GPUs as NVIDIA's management library (NVML) knows them, where it is installed."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def gpu_names() -> tuple[str, ...]:
    """Names of the GPUs; none where NVML or a driver is missing."""
    return _ask(lambda nvml: tuple(map(nvml.nvmlDeviceGetName, _devices(nvml)))) or ()


def gpu_memory_mib() -> float | None:
    """Memory that this process uses on all GPUs, in MiB.

    None without NVML or a driver, and where NVML does not list this process or says nothing of its
    memory: inside a container that numbers processes anew, and where no GPU is in use.
    """
    return _ask(_memory_of_this_process)


def _memory_of_this_process(nvml: Any) -> float | None:  # noqa: ANN401 - it ships no types
    used = [
        process.usedGpuMemory
        for device in _devices(nvml)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(device)
        if process.pid == os.getpid() and process.usedGpuMemory is not None
    ]
    return float(sum(used) / 2**20) if used else None


def _devices(nvml: Any) -> list[Any]:  # noqa: ANN401
    return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]


def _ask(question: Callable[[Any], Answer]) -> Answer | None:
    """Answer of the library; None where it is missing, or has no driver, or cannot tell."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return question(nvml)
    except nvml.NVMLError:
        return None
