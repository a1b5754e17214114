"""Sessions on ONNX Runtime: its CPU provider runs anywhere, others use the GPU."""

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vditrack.errors import BackendError, install_command
from vditrack.inference.isolated_import import find_plugin_crash
from vditrack.inference.session import (
    AbsentError,
    Array,
    ArraySession,
    Session,
    TensorSpec,
    check_outputs,
)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
TENSORRT_RTX = "NvTensorRTRTXExecutionProvider"

_LOG = logging.getLogger("vditrack")
_OPTIONS: dict[str, dict[str, str]] = {
    CUDA: {
        # The graph defines the precision: TF32 would round its FP32 products to 10 bits.
        "use_tf32": "0",
        # The default, EXHAUSTIVE, takes more memory and seconds at the first run.
        "cudnn_conv_algo_search": "HEURISTIC",
        # By default the arena doubles, and all shapes are static.
        "arena_extend_strategy": "kSameAsRequested",
    },
}
_NUMBERED = {CUDA, TENSORRT}
"""Providers that take the number of a GPU as an option."""
_NEXT = {TENSORRT: [CUDA]}
"""Providers that run the nodes which a provider cannot, before the CPU provider does."""
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
_NO_BF16 = ". Its CPU provider does not support BF16: export with --precision fp32 or fp16."


class OnnxRuntimeSession(ArraySession):
    """A graph loaded on one of ONNX Runtime's execution providers."""

    def __init__(self, graph: Path, provider: str = CPU, threads: int = 0, device: int = 0) -> None:
        """Load a graph.

        Args:
            graph: Path of an ONNX file.
            provider: ONNX Runtime's name of the provider. The CPU runs nodes that it cannot.
            threads: Threads of the CPU that run the graph; 0 for one on each core.
            device: Number of the GPU, as CUDA counts.

        Raises:
            AbsentError: ONNX Runtime or its provider is not installed.
            BackendError: The provider does not start, or it refuses the graph.

        """
        self._graph = graph
        self.session = open_inference_session(str(graph), str(graph), provider, threads, device)
        """ONNX Runtime's own session."""
        self.inputs = {node.name: _tensor(graph, node) for node in self.session.get_inputs()}
        self.outputs = {node.name: _tensor(graph, node) for node in self.session.get_outputs()}

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once on arrays of all inputs.

        Raises:
            BackendError: The graph fails to run, or an output is not finite.

        """
        names = list(self.outputs)
        try:
            arrays = self.session.run(names, dict(inputs))
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise BackendError(f"{self._graph} loads but fails to run: {error}") from error
        outputs = dict(zip(names, arrays, strict=True))
        check_outputs(self._graph, outputs)
        return outputs


def open_inference_session(
    model: str | bytes, title: str, provider: str, threads: int = 0, device: int = 0
) -> Any:  # noqa: ANN401 - it ships no types
    """Return ONNX Runtime's session of a model on a provider.

    Args:
        model: Path or content of the model.
        title: Name of the model, for messages.
        provider: ONNX Runtime's name of the provider. The CPU runs nodes that it cannot.
        threads: Threads of the CPU that run the graph; 0 for one on each core.
        device: Number of the GPU, as CUDA counts.

    Raises:
        AbsentError: ONNX Runtime or its provider is not installed.
        BackendError: The provider does not start, or it refuses the model.

    """
    onnxruntime = import_onnxruntime()
    options = _options(onnxruntime)
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=_providers(onnxruntime, provider, options, device),
            enable_fallback=False,
        )
    except BackendError:
        raise
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        bf16 = provider == CPU and "NOT_IMPLEMENTED" in str(error)
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} does not load {title}"
            f"{'' if provider == CPU else f' on its {provider}'}: {error}{_NO_BF16 * bf16}"
        ) from error
    # ONNX Runtime drops a provider whose libraries are missing without an exception.
    if (found := session.get_providers()[0]) != provider:
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} chose {found} because its {provider} did "
            "not start. The lines that it printed give the reason; most often the driver, CUDA "
            "or cuDNN is missing or has the wrong version, or there is no such GPU."
        )
    # Otherwise ONNX Runtime would answer a GPU error by reloading the graph on the CPU.
    session.disable_fallback()
    return session


def import_onnxruntime() -> ModuleType:
    """Return ONNX Runtime's module.

    Raises:
        AbsentError: It is not installed.

    """
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise AbsentError(
            f"ONNX Runtime is not installed. Run `{install_command('cpu')}`, or with gpu in place "
            "of cpu for an NVIDIA GPU; on a Jetson, install the wheel made for its JetPack."
        ) from error


def _remedy(provider: str) -> str:
    """Return the sentence that says how to install a provider."""
    if provider == TENSORRT_RTX:
        return "Run `pip install onnxruntime-ep-nv-tensorrt-rtx`."
    return (
        f"Run `pip uninstall -y onnxruntime && {install_command('gpu')}`; on a Jetson, install the "
        "wheel made for its JetPack."
    )


def _options(onnxruntime: ModuleType) -> Any:  # noqa: ANN401 - it ships no types
    options = onnxruntime.SessionOptions()
    # Spinning idle threads would take the cores from OpenCV and NumPy between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The memory pattern of the first run would be allocated beside what the arena already keeps:
    # more memory, and no time saved.
    options.enable_mem_pattern = False
    return options


def _providers(
    onnxruntime: ModuleType,
    provider: str,
    options: Any,  # noqa: ANN401
    device: int,
) -> list[tuple[str, dict[str, str]]] | None:
    """Return providers in the order in which they choose nodes; None for a plug-in in options."""
    compiled_in = onnxruntime.get_available_providers()
    if provider not in compiled_in and provider == TENSORRT_RTX:
        found = _plugin_devices(onnxruntime)
        if device >= len(found):
            raise BackendError(f"there is no GPU {device}: {provider} finds {len(found)}.")
        options.add_provider_for_devices([found[device]], {})
        return None
    if provider not in compiled_in:
        raise AbsentError(
            f"ONNX Runtime {onnxruntime.__version__} here has no {provider}. {_remedy(provider)}"
        )
    if provider in {CUDA, TENSORRT}:
        _preload_cuda(onnxruntime)
    names = [provider, *(name for name in _NEXT.get(provider, []) if name in compiled_in)]
    number = {"device_id": str(device)}
    return [
        (name, {**_OPTIONS.get(name, {}), **(number if name in _NUMBERED else {})})
        for name in dict.fromkeys([*names, CPU])
    ]


@cache
def _plugin_devices(onnxruntime: ModuleType) -> list[Any]:
    """Load the TensorRT-RTX plug-in once; return its devices (TensorRT RTX EP guide)."""
    try:
        plugin = import_module(_PLUGIN)
    except ImportError as error:
        raise AbsentError(
            f"ONNX Runtime's {TENSORRT_RTX} is not installed. {_remedy(TENSORRT_RTX)}"
        ) from error
    if (crash := find_plugin_crash(str(plugin.get_library_path()))) is not None:
        raise BackendError(f"ONNX Runtime's {TENSORRT_RTX} {crash} when it is loaded.")
    try:
        onnxruntime.register_execution_provider_library(TENSORRT_RTX, plugin.get_library_path())
    # ONNX Runtime's exceptions share no base class of their own.
    except Exception as error:
        raise BackendError(f"ONNX Runtime's {TENSORRT_RTX} does not load: {error}.") from error
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == TENSORRT_RTX]
    if not devices:
        raise BackendError(f"ONNX Runtime's {TENSORRT_RTX} finds no RTX GPU.")
    return devices


@cache
def _preload_cuda(onnxruntime: ModuleType) -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where the system's loader does not look."""
    # Exists from 1.21 on. A library that it misses may be elsewhere: the provider's start decides.
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()) as printed:
            onnxruntime.preload_dlls()
        _LOG.debug("%s", printed.getvalue())


def _tensor(graph: Path, node: object) -> TensorSpec:
    shape, kind = getattr(node, "shape", ()), getattr(node, "type", "")
    if kind not in _DTYPES or not all(isinstance(side, int) for side in shape):
        name = getattr(node, "name", "?")
        raise BackendError(
            f"{graph}: tensor {name!r} is {kind} {shape}; static shapes of uint8, int32, "
            "float32 or float16 are needed. Export the bundle again."
        )
    return TensorSpec(tuple(shape), _DTYPES[kind])


def open_session(graph: Path, threads: int = 0) -> Session:
    """Load a graph on ONNX Runtime's CPU provider, which runs anywhere.

    Args:
        graph: Path of an ONNX file.
        threads: Threads that run the graph; 0 for one on each core.

    Raises:
        BackendError: ONNX Runtime is not installed, or it refuses the graph.

    """
    return OnnxRuntimeSession(graph, threads=threads)
