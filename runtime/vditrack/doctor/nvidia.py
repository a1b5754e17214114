"""NVIDIA's driver and libraries, and TensorRT."""

import sys
from collections.abc import Iterator
from pathlib import Path

from vditrack.doctor.child import Reply, ask
from vditrack.doctor.finding import Finding
from vditrack.doctor.hardware import is_jetson, nvidia_gpu

_JETPACK = "sudo apt install nvidia-jetpack"


def gpu() -> Iterator[Finding]:
    """Find the driver and the first GPU."""
    reply = ask("machine")
    driver, cuda = reply.told.get("driver"), reply.told.get("cuda")
    if reply.error is not None:
        yield Finding("NVIDIA driver", "broken", f"asking it fails: {reply.error}", _driver())
    elif cuda is not None:
        version = f"{driver or 'version unknown'}, runs CUDA up to {cuda}"
        yield Finding("NVIDIA driver", "works", version)
        architecture = str(reply.told["architecture"]).upper()
        yield Finding("GPU", "works", f"{reply.told['gpu']}, {architecture}")
    elif nvidia_gpu():
        found = f"there is an NVIDIA GPU, and CUDA's driver does not start ({driver or 'none'})"
        yield Finding("NVIDIA driver", "broken", found, _driver())
    else:
        yield Finding("NVIDIA driver", "missing", "no NVIDIA GPU is here")


def cuda_runtime() -> Iterator[Finding]:
    """Load CUDA's runtime library."""
    yield _library("CUDA runtime", ask("cuda_runtime"), "pip install 'onnxruntime-gpu[cuda]'")


def cudnn() -> Iterator[Finding]:
    """Load cuDNN."""
    yield _library("cuDNN", ask("cudnn"), "pip install 'onnxruntime-gpu[cudnn]'")


def tensorrt() -> Iterator[Finding]:
    """Import TensorRT."""
    install = _JETPACK if is_jetson() else "pip install tensorrt"
    reply = ask("tensorrt", "tensorrt")
    system = _of_the_system()
    if reply.absent == "tensorrt" and system is not None:
        found = f"{system} is there, and this virtual environment does not see it"
        remedy = "python3 -m venv --system-site-packages ENVIRONMENT"
        yield Finding("TensorRT", "missing", found, remedy)
    else:
        yield _tensorrt("TensorRT", "tensorrt", reply, install)


def tensorrt_rtx() -> Iterator[Finding]:
    """Import TensorRT-RTX."""
    reply = ask("tensorrt", "tensorrt_rtx")
    yield _tensorrt("TensorRT-RTX", "tensorrt_rtx", reply, "pip install 'vditrack[tensorrt-rtx]'")


def _tensorrt(name: str, module: str, reply: Reply, install: str) -> Finding:
    if reply.absent == module:
        # TensorRT-RTX is of use without a GPU: it builds engines for other machines.
        remedy = install if nvidia_gpu() or module == "tensorrt_rtx" else None
        return Finding(name, "missing", "not installed", remedy)
    if reply.error is not None:
        remedy = install.replace("install", "install --force-reinstall", 1)
        return Finding(name, "broken", f"does not load: {reply.error}", remedy)
    can = "builds engines" if reply.told["builds"] else "loads; it builds only where a GPU is"
    return Finding(name, "works", f"{reply.told['version']}, {can}")


def _library(name: str, reply: Reply, install: str) -> Finding:
    if reply.error is None:
        return Finding(name, "works", f"{reply.told['version']}, {reply.told['place']}")
    install = _JETPACK if is_jetson() else install
    if "is not there" in reply.error:
        remedy = install if nvidia_gpu() else None
        return Finding(name, "missing", reply.error.partition(": ")[2], remedy)
    return Finding(name, "broken", f"does not load: {reply.error}", install)


def _of_the_system() -> Path | None:
    """Find JetPack's TensorRT, which a virtual environment does not see by itself."""
    if sys.prefix == sys.base_prefix:
        return None
    major, minor = sys.version_info[:2]
    for folder in ("python3/dist-packages", f"python{major}.{minor}/dist-packages"):
        place = Path("/usr/lib") / folder / "tensorrt"
        if place.is_dir():
            return place
    return None


def _driver() -> str:
    if is_jetson():
        return _JETPACK
    return "sudo ubuntu-drivers install, then reboot; in a container, docker run --gpus all"
