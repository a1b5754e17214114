"""Checks of NVIDIA's driver and libraries, and of TensorRT."""

import sys
from collections.abc import Iterator
from pathlib import Path

from vditrack.doctor.child import Reply, run_probe
from vditrack.doctor.finding import Finding
from vditrack.doctor.hardware import has_nvidia_gpu, is_jetson
from vditrack.errors import install_command

_JETPACK = "sudo apt install nvidia-jetpack"


def check_gpu() -> Iterator[Finding]:
    """Query the driver and the first GPU."""
    reply = run_probe("machine")
    driver, cuda = reply.result.get("driver"), reply.result.get("cuda")
    if reply.error is not None:
        yield Finding(
            "NVIDIA driver", "broken", f"the query fails: {reply.error}", _driver_remedy()
        )
    elif cuda is not None:
        version = f"{driver or 'version unknown'}, runs CUDA up to {cuda}"
        yield Finding("NVIDIA driver", "works", version)
        architecture = str(reply.result["architecture"]).upper()
        yield Finding("GPU", "works", f"{reply.result['gpu']}, {architecture}")
    elif has_nvidia_gpu():
        found = f"there is an NVIDIA GPU, but the CUDA driver does not start ({driver or 'none'})"
        yield Finding("NVIDIA driver", "broken", found, _driver_remedy())
    else:
        yield Finding("NVIDIA driver", "missing", "this machine has no NVIDIA GPU")


def check_cuda_runtime() -> Iterator[Finding]:
    """Load the CUDA runtime library."""
    yield _report_library(
        "CUDA runtime", run_probe("cuda_runtime"), "pip install 'onnxruntime-gpu[cuda]'"
    )


def check_cudnn() -> Iterator[Finding]:
    """Load cuDNN."""
    yield _report_library("cuDNN", run_probe("cudnn"), "pip install 'onnxruntime-gpu[cudnn]'")


def check_tensorrt() -> Iterator[Finding]:
    """Import TensorRT."""
    install = _JETPACK if is_jetson() else "pip install tensorrt"
    reply = run_probe("tensorrt", "tensorrt")
    system = _find_system_tensorrt()
    if reply.absent == "tensorrt" and system is not None:
        found = f"{system} is installed, but this virtual environment does not see it"
        remedy = "python3 -m venv --system-site-packages ENVIRONMENT"
        yield Finding("TensorRT", "missing", found, remedy)
    else:
        yield _report_tensorrt("TensorRT", "tensorrt", reply, install)


def check_tensorrt_rtx() -> Iterator[Finding]:
    """Import TensorRT-RTX."""
    reply = run_probe("tensorrt", "tensorrt_rtx")
    yield _report_tensorrt("TensorRT-RTX", "tensorrt_rtx", reply, install_command("tensorrt-rtx"))


def _report_tensorrt(name: str, module: str, reply: Reply, install: str) -> Finding:
    if reply.absent == module:
        # TensorRT-RTX is useful without a GPU: it builds engines for other machines.
        remedy = install if has_nvidia_gpu() or module == "tensorrt_rtx" else None
        return Finding(name, "missing", "not installed", remedy)
    if reply.error is not None:
        remedy = install.replace("install", "install --force-reinstall", 1)
        return Finding(name, "broken", f"does not load: {reply.error}", remedy)
    can = "builds engines" if reply.result["builds"] else "loads; builds engines only with a GPU"
    return Finding(name, "works", f"{reply.result['version']}, {can}")


def _report_library(name: str, reply: Reply, install: str) -> Finding:
    if reply.error is None:
        return Finding(name, "works", f"{reply.result['version']}, {reply.result['place']}")
    install = _JETPACK if is_jetson() else install
    if "is not there" in reply.error:
        remedy = install if has_nvidia_gpu() else None
        return Finding(name, "missing", reply.error.partition(": ")[2], remedy)
    return Finding(name, "broken", f"does not load: {reply.error}", install)


def _find_system_tensorrt() -> Path | None:
    """Return the path of JetPack's TensorRT if this virtual environment does not see it."""
    if sys.prefix == sys.base_prefix:
        return None
    major, minor = sys.version_info[:2]
    for folder in ("python3/dist-packages", f"python{major}.{minor}/dist-packages"):
        place = Path("/usr/lib") / folder / "tensorrt"
        if place.is_dir():
            return place
    return None


def _driver_remedy() -> str:
    if is_jetson():
        return _JETPACK
    return "sudo ubuntu-drivers install, then reboot; in a container, docker run --gpus all"
