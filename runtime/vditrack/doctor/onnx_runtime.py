"""ONNX Runtime: its wheels, and its providers, each proved by a product that it computes."""

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from vditrack.doctor.child import Reply, ask
from vditrack.doctor.finding import Finding, State
from vditrack.doctor.hardware import is_jetson, nvidia_gpu

AZURE = "AzureExecutionProvider"
"""Asks a server elsewhere, and computes nothing here."""
NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
_OF_LIBRARY = {
    "libonnxruntime_providers_cuda.so": "CUDAExecutionProvider",
    "libonnxruntime_providers_tensorrt.so": "TensorrtExecutionProvider",
    "libonnxruntime_providers_nv_tensorrt_rtx.so": "NvTensorRTRTXExecutionProvider",
    "libonnxruntime_providers_openvino.so": "OpenVINOExecutionProvider",
}
_COMPUTES = "multiplied two matrices, and rightly"
# Wheels for the Python of JetPack 6, and for that of JetPack 7.
_JETSON_INDEX = "jp6/cu126" if sys.version_info[:2] == (3, 10) else "sbsa/cu130"
_JETSON_WHEEL = (
    f"pip install onnxruntime-gpu --index-url https://pypi.jetson-ai-lab.io/{_JETSON_INDEX}"
)

# What the loader says, as ONNX Runtime logs or warns of it.
_SAID = re.compile(r"(?:with error: |Failed to register bundled CUDA plugin EP from \S+ )(.+)")
_ABSENT = re.compile(r"(lib\S+\.so\S*): cannot open shared object file: No such file")
# A library that is cut short behind its header takes the process along.
_DAMAGED = re.compile(r"file too short|invalid ELF|wrong ELF class|undefined symbol|crashes with")


def wheels() -> Iterator[Finding]:
    """Find the wheels that bring ``onnxruntime``: exactly one can."""
    name = "ONNX Runtime"
    owners = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    listed = " and ".join(f"{owner} {metadata.version(owner)}" for owner in owners)
    reply = ask("version", "onnxruntime", "onnxruntime")
    if len(owners) > 1:
        found = f"{listed} are both installed, and overwrite each other's files"
        yield Finding(name, "broken", found, _one_of(owners))
    elif reply.absent == "onnxruntime":
        yield Finding(name, "broken", "not installed", _wheel_for_here())
    elif reply.error is not None:
        remedy = _one_of(owners) if owners else _wheel_for_here()
        yield Finding(name, "broken", f"{listed} does not load: {reply.error}".strip(), remedy)
    else:
        yield Finding(name, "works", listed or f"{reply.told['version']}, from no wheel")


def providers() -> Iterator[Finding]:
    """Multiply two matrices on each provider."""
    reply = ask("providers")
    if reply.error is not None:
        found = f"none, since ONNX Runtime does not load: {reply.error}"
        yield Finding("ONNX Runtime's providers", "broken", found, "see ONNX Runtime, above")
        return
    offered = [name for name in reply.told["offered"] if name != AZURE]
    for name in offered:
        yield _provider(name, ask("provider", name))
    for library in reply.told["libraries"]:
        if _OF_LIBRARY.get(library, library) not in offered:
            yield _left_over(library, reply)
    for module in reply.told["plug_ins"]:
        yield _plug_in(module, ask("plug_in", module))


def _provider(provider: str, reply: Reply) -> Finding:
    name = _title(provider)
    if reply.error is None:
        return Finding(name, "works", _COMPUTES)
    why = _reason(reply)
    if (missing := _not_here(name, why)) is not None:
        return missing
    # A wheel offers providers for hardware that need not be here.
    known = provider == "CPUExecutionProvider" or (provider in NVIDIA and nvidia_gpu())
    state: State = "broken" if known or _DAMAGED.search(why) else "missing"
    return Finding(name, state, f"does not compute: {why}", _mended(why))


def _plug_in(module: str, reply: Reply) -> Finding:
    name = f"ONNX Runtime plug-in {module}"
    if reply.error is not None:
        why = _reason(reply)
        remedy = f"pip install --force-reinstall {module.replace('_', '-')}"
        return _not_here(name, why) or Finding(name, "broken", f"does not work: {why}", remedy)
    if not reply.told["devices"]:
        return Finding(name, "missing", "loads, and finds no device that it can use")
    return Finding(name, "works", _COMPUTES)


def _not_here(name: str, why: str) -> Finding | None:
    """Name TensorRT, or an NVIDIA GPU, where nothing else is wanting."""
    absent = _ABSENT.search(why)
    if absent is None:
        return None
    if "nvinfer" in absent[1]:
        found = f"needs TensorRT: {absent[1]} is not there"
        return Finding(name, "missing", found, "pip install tensorrt")
    if not nvidia_gpu():
        found = f"needs an NVIDIA GPU, and none is here: {absent[1]} is not there"
        return Finding(name, "missing", found)
    return None


def _left_over(library: str, reply: Reply) -> Finding:
    """Name a provider's library that ONNX Runtime does not use, though it lies beside it."""
    said = _SAID.search(reply.log)
    why = said[1] if said else "it belongs to another wheel, which this one has overwritten"
    found = f"{library} is there, and ONNX Runtime does not offer it: {why}"
    name = _title(_OF_LIBRARY.get(library, library))
    return Finding(name, "broken", found, _mended(why))


def _reason(reply: Reply) -> str:
    """Say why: what the loader said where ONNX Runtime logged that, else the error."""
    said = _SAID.search(f"{reply.log}\n{reply.error}")
    return " ".join((said[1] if said else reply.error or "").split())[:300]


def _mended(why: str) -> str:
    if _ABSENT.search(why) and not is_jetson():
        return "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    owners = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    return _one_of(owners) if owners else _wheel_for_here()


def _one_of(owners: list[str]) -> str:
    """Keep one wheel: the one that was asked for beside the plain one."""
    special = [owner for owner in owners if owner != "onnxruntime"]
    install = _JETSON_WHEEL if is_jetson() else f"pip install {(special or owners)[0]}"
    return f"pip uninstall -y {' '.join(owners)} && {install}"


def _wheel_for_here() -> str:
    if is_jetson():
        return _JETSON_WHEEL
    return f"pip install 'vditrack[{'gpu' if nvidia_gpu() else 'cpu'}]'"


def _title(provider: str) -> str:
    return f"ONNX Runtime on {provider.removesuffix('ExecutionProvider')}"
