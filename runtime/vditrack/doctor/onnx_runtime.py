"""Checks of ONNX Runtime: its wheels, and its providers by a matrix product on each."""

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from vditrack.doctor.child import Reply, run_probe
from vditrack.doctor.finding import Finding, State
from vditrack.doctor.hardware import has_nvidia_gpu, is_jetson
from vditrack.errors import install_command

AZURE = "AzureExecutionProvider"
"""Calls a remote server and computes nothing on this machine."""
NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
_PROVIDER_OF_LIBRARY = {
    "libonnxruntime_providers_cuda.so": "CUDAExecutionProvider",
    "libonnxruntime_providers_tensorrt.so": "TensorrtExecutionProvider",
    "libonnxruntime_providers_nv_tensorrt_rtx.so": "NvTensorRTRTXExecutionProvider",
    "libonnxruntime_providers_openvino.so": "OpenVINOExecutionProvider",
}
_COMPUTES = "multiplies matrices correctly"
# JetPack 6 has Python 3.10; later ones are JetPack 7.
_JETSON_INDEX = "jp6/cu126" if sys.version_info[:2] == (3, 10) else "sbsa/cu130"
_JETSON_WHEEL = (
    f"pip install onnxruntime-gpu --index-url https://pypi.jetson-ai-lab.io/{_JETSON_INDEX}"
)

# The error of the loader, as ONNX Runtime logs it.
_LOADER_ERROR = re.compile(
    r"(?:with error: |Failed to register bundled CUDA plugin EP from \S+ )(.+)"
)
_ABSENT_LIBRARY = re.compile(r"(lib\S+\.so\S*): cannot open shared object file: No such file")
# A library that is cut short after its header crashes the process.
_DAMAGED = re.compile(r"file too short|invalid ELF|wrong ELF class|undefined symbol|crashes with")


def check_wheels() -> Iterator[Finding]:
    """Find the wheels that provide ``onnxruntime``; there must be exactly one."""
    name = "ONNX Runtime"
    owners = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    listed = " and ".join(f"{owner} {metadata.version(owner)}" for owner in owners)
    reply = run_probe("version", "onnxruntime", "onnxruntime")
    if len(owners) > 1:
        found = f"{listed} are both installed and overwrite each other's files"
        yield Finding(name, "broken", found, _keep_one_wheel(owners))
    elif reply.absent == "onnxruntime":
        yield Finding(name, "broken", "not installed", _install_wheel())
    elif reply.error is not None:
        remedy = _keep_one_wheel(owners) if owners else _install_wheel()
        yield Finding(name, "broken", f"{listed} does not load: {reply.error}".strip(), remedy)
    else:
        yield Finding(name, "works", listed or f"{reply.result['version']}, from no wheel")


def check_providers() -> Iterator[Finding]:
    """Multiply two matrices on each provider and plug-in."""
    reply = run_probe("providers")
    if reply.error is not None:
        found = f"none: ONNX Runtime does not load: {reply.error}"
        yield Finding("ONNX Runtime's providers", "broken", found, "see ONNX Runtime, above")
        return
    offered = [name for name in reply.result["offered"] if name != AZURE]
    for name in offered:
        yield _report_provider(name, run_probe("provider", name))
    for library in reply.result["libraries"]:
        if _PROVIDER_OF_LIBRARY.get(library, library) not in offered:
            yield _report_unused_library(library, reply)
    for module in reply.result["plug_ins"]:
        yield _report_plug_in(module, run_probe("plug_in", module))


def _report_provider(provider: str, reply: Reply) -> Finding:
    name = _format_name(provider)
    if reply.error is None:
        return Finding(name, "works", _COMPUTES)
    reason = _extract_reason(reply)
    if (missing := _report_missing_hardware(name, reason)) is not None:
        return missing
    # A wheel offers providers also for hardware that this machine does not have.
    known = provider == "CPUExecutionProvider" or (provider in NVIDIA and has_nvidia_gpu())
    state: State = "broken" if known or _DAMAGED.search(reason) else "missing"
    return Finding(name, state, f"does not compute: {reason}", _choose_remedy(reason))


def _report_plug_in(module: str, reply: Reply) -> Finding:
    name = f"ONNX Runtime plug-in {module}"
    if reply.error is not None:
        reason = _extract_reason(reply)
        remedy = f"pip install --force-reinstall {module.replace('_', '-')}"
        return _report_missing_hardware(name, reason) or Finding(
            name, "broken", f"does not work: {reason}", remedy
        )
    if not reply.result["devices"]:
        return Finding(name, "missing", "loads, but finds no device that it can use")
    return Finding(name, "works", _COMPUTES)


def _report_missing_hardware(name: str, reason: str) -> Finding | None:
    """Return a finding if only TensorRT or an NVIDIA GPU is missing, else None."""
    absent = _ABSENT_LIBRARY.search(reason)
    if absent is None:
        return None
    if "nvinfer" in absent[1]:
        found = f"needs TensorRT: {absent[1]} is not there"
        return Finding(name, "missing", found, "pip install tensorrt")
    if not has_nvidia_gpu():
        found = f"needs an NVIDIA GPU, which this machine does not have: {absent[1]} is not there"
        return Finding(name, "missing", found)
    return None


def _report_unused_library(library: str, reply: Reply) -> Finding:
    """Return the finding for a provider library that ONNX Runtime does not use."""
    match = _LOADER_ERROR.search(reply.log)
    reason = match[1] if match else "it belongs to another wheel, which this one has overwritten"
    found = f"{library} is there, but ONNX Runtime does not offer it: {reason}"
    name = _format_name(_PROVIDER_OF_LIBRARY.get(library, library))
    return Finding(name, "broken", found, _choose_remedy(reason))


def _extract_reason(reply: Reply) -> str:
    """Return the error of the loader if ONNX Runtime logged it, else the error of the probe."""
    match = _LOADER_ERROR.search(f"{reply.log}\n{reply.error}")
    return " ".join((match[1] if match else reply.error or "").split())[:300]


def _choose_remedy(reason: str) -> str:
    if _ABSENT_LIBRARY.search(reason) and not is_jetson():
        return "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    owners = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    return _keep_one_wheel(owners) if owners else _install_wheel()


def _keep_one_wheel(owners: list[str]) -> str:
    """Return the command that keeps one wheel: the special one beside ``onnxruntime``."""
    special = [owner for owner in owners if owner != "onnxruntime"]
    install = _JETSON_WHEEL if is_jetson() else f"pip install {(special or owners)[0]}"
    return f"pip uninstall -y {' '.join(owners)} && {install}"


def _install_wheel() -> str:
    if is_jetson():
        return _JETSON_WHEEL
    return install_command("gpu" if has_nvidia_gpu() else "cpu")


def _format_name(provider: str) -> str:
    return f"ONNX Runtime on {provider.removesuffix('ExecutionProvider')}"
