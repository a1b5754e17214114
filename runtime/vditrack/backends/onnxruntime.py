"""ONNX Runtime: the engine that runs anywhere."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vditrack.backends import Array, Tensor
from vditrack.errors import BackendError

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}

_NO_BF16 = ". On the CPU it has no BF16: export with --precision fp32 or fp16 for it."


class OnnxRuntimeSession:
    """A graph on ONNX Runtime's CPU provider."""

    def __init__(self, graph: Path) -> None:
        try:
            import onnxruntime  # noqa: PLC0415
        except ImportError as error:
            raise BackendError(
                "ONNX Runtime is not installed. Install one of `pip install vditrack[cpu]` and "
                "`pip install vditrack[gpu]`; on a Jetson, the wheel made for its JetPack."
            ) from error
        try:
            self._session = onnxruntime.InferenceSession(
                str(graph), _options(onnxruntime), providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} does not load {graph}: {error}"
                f"{_NO_BF16 * ('NOT_IMPLEMENTED' in str(error))}"
            ) from error
        self.inputs = {node.name: _tensor(graph, node) for node in self._session.get_inputs()}
        self.outputs = {node.name: _tensor(graph, node) for node in self._session.get_outputs()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


def _options(onnxruntime: ModuleType) -> object:
    options = onnxruntime.SessionOptions()
    # Idle threads would spin, and take the cores from OpenCV and NumPy between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A block laid out by the first run's pattern would come beside what that run allocated and
    # the arena keeps: more memory, and no time saved.
    options.enable_mem_pattern = False
    return options


def _tensor(graph: Path, node: object) -> Tensor:
    shape, kind = getattr(node, "shape", ()), getattr(node, "type", "")
    if kind not in _DTYPES or not all(isinstance(side, int) for side in shape):
        name = getattr(node, "name", "?")
        raise BackendError(f"{graph}: tensor {name!r} is {kind} {shape}, not of a static shape.")
    return Tensor(tuple(shape), _DTYPES[kind])
