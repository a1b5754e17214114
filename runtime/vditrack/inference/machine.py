"""The libraries, driver and GPU of this machine, which an engine has to fit."""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

from vditrack.inference.isolated_import import import_isolated

TEGRA_RELEASE = Path("/etc/nv_tegra_release")
DPKG_STATUS = Path("/var/lib/dpkg/status")
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Machine:
    """Versions of libraries that can be imported, and a GPU; None for what is absent."""

    tensorrt: str | None
    """Version of TensorRT, as in "10.3.0"."""
    tensorrt_rtx: str | None
    """Version of TensorRT-RTX, as in "1.7.1.116"."""
    architecture: str | None
    """Compute capability of the GPU, as in "sm87"."""
    gpu: str | None
    """Name of the GPU."""
    driver: str | None
    """Version of NVIDIA's driver, as in "580.95.05"."""
    cuda: str | None
    """Newest CUDA that the driver runs, as in "13.0"."""
    jetpack: str | None
    """Version of JetPack, as in "6.2", or of Jetson Linux, as in "L4T R36.4"."""


def read_machine(device: int = 0) -> Machine:
    """Return what this machine has; whatever is absent or broken is None.

    Args:
        device: Number of the GPU, as CUDA counts.

    """
    driver_api = _library("libcuda.so.1", "nvcuda.dll", "cuInit", 0)
    return Machine(
        tensorrt=library_version("tensorrt"),
        tensorrt_rtx=library_version("tensorrt_rtx"),
        architecture=None if driver_api is None else _architecture(driver_api, device),
        gpu=None if driver_api is None else _gpu_name(driver_api, device),
        driver=_driver_version(),
        cuda=None if driver_api is None else _cuda_version(driver_api),
        jetpack=_jetpack(),
    )


def library_version(name: str) -> str | None:
    """Return the version of an inference library; None if it is not installed or does not load."""
    try:
        return str(import_isolated(name).__version__)
    # The module, or a shared library that it needs, is missing or broken, or it crashes.
    except (ImportError, AttributeError):
        return None


def count_gpus() -> int | None:
    """Return the number of GPUs that CUDA finds; None without a driver that works."""
    driver_api = _library("libcuda.so.1", "nvcuda.dll", "cuInit", 0)
    count = ctypes.c_int()
    if driver_api is None or driver_api.cuDeviceGetCount(ctypes.byref(count)):
        return None
    return count.value


def free_device_memory() -> int | None:
    """Return the free memory of the first GPU in bytes; None without a GPU."""
    driver_api = _library("libcuda.so.1", "nvcuda.dll", "cuInit", 0)
    context = ctypes.c_void_p()
    if driver_api is None or driver_api.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0):
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver_api.cuCtxPushCurrent_v2(context)
    failed = driver_api.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    driver_api.cuCtxPopCurrent_v2(ctypes.byref(context))
    driver_api.cuDevicePrimaryCtxRelease_v2(0)
    return None if failed else free.value


def _library(linux: str, windows: str, start: str, *arguments: int) -> ctypes.CDLL | None:
    """Load and start one of the driver's libraries; None if it is missing or has no device."""
    for name in (linux, windows):
        try:
            library = ctypes.CDLL(name)
            if getattr(library, start)(*arguments) == 0:
                return library
        except (OSError, AttributeError):
            continue
    return None


def _architecture(driver_api: ctypes.CDLL, device: int) -> str | None:
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = driver_api.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    failed |= driver_api.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return None if failed else f"sm{major.value}{minor.value}"


def _gpu_name(driver_api: ctypes.CDLL, device: int) -> str | None:
    name = ctypes.create_string_buffer(256)
    failed = driver_api.cuDeviceGetName(name, len(name), device)
    return None if failed else name.value.decode(errors="replace")


def _cuda_version(driver_api: ctypes.CDLL) -> str | None:
    version = ctypes.c_int()
    if driver_api.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _driver_version() -> str | None:
    nvml = _library("libnvidia-ml.so.1", "nvml.dll", "nvmlInit_v2")
    if nvml is not None:
        version = ctypes.create_string_buffer(96)
        failed = nvml.nvmlSystemGetDriverVersion(version, len(version))
        nvml.nvmlShutdown()
        if not failed:
            return version.value.decode(errors="replace")
    # A Jetson may have no NVML.
    found = re.search(r"Kernel Module\s.*?(\d+\.\d+(?:\.\d+)?)\s", _text(DRIVER_VERSION))
    return found.group(1) if found else None


def _jetpack() -> str | None:
    """Return JetPack's version by its package, else that of Jetson Linux by its release file."""
    package = re.search(
        r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([\d.]+)", _text(DPKG_STATUS), re.MULTILINE
    )
    if package:
        return package.group(1)
    release = re.search(r"R(\d+) \(release\), REVISION: (\d+)", _text(TEGRA_RELEASE))
    return f"L4T R{release.group(1)}.{release.group(2)}" if release else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
