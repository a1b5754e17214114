"""TensorRT and TensorRT-RTX: an engine that `vditrack build` made, run as it is.

Both have the same Python API ("TensorRT Python API Reference", IExecutionContext). What differs is
how launches are saved: TensorRT's work is recorded into a CUDA graph here, TensorRT-RTX does it
itself, and what it compiles for this GPU is kept in a file beside the engine.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vditrack.atomic_files import staged_file
from vditrack.errors import BackendError, InputError
from vditrack.inference.cuda import Stream
from vditrack.inference.engine_identity import TITLES, Target
from vditrack.inference.session import AbsentError, Array, TensorSpec
from vditrack.inference.trt_log import collecting_logger

KEPT = ".runtime_cache"
"""Suffix of what was compiled for this GPU; it goes with the build when that is replaced."""
_LOG = logging.getLogger("vditrack")
_MODULES: dict[Target, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype(np.uint8),
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
}


class EngineSession:
    """One engine on the first GPU: see `vditrack.inference.session.Session`.

    Its memory, on the GPU and pinned on the host, is allocated once. Runs follow each other, also
    those of several threads.
    """

    def __init__(
        self, path: Path, target: Target, *, host_code: bool = False, weights: Path | None = None
    ) -> None:
        """Load an engine, ready to run.

        Args:
            path: of the engine.
            target: the library that built it.
            host_code: whether it brings its own runtime, as a version compatible one does.
            weights: ONNX file that it was built from, where its weights were stripped.

        Raises:
            AbsentError: the library or cuda-bindings is not installed.
            BackendError: there is no GPU, it has not the memory, or the engine does not load.

        """
        library = _library(target)
        # CUDA first: without a GPU its message is the clearer one.
        self._stream = Stream()
        engine = _deserialised(library, path, target, host_code=host_code)
        if weights is not None:
            _refit(library, engine, path, weights)
        tensors = _tensors(library, engine, path)
        self.inputs = {name: tensor for name, (tensor, enters) in tensors.items() if enters}
        self.outputs = {name: tensor for name, (tensor, enters) in tensors.items() if not enters}
        self._buffers = {name: self._stream.buffer(tensor) for name, (tensor, _) in tensors.items()}
        self._path, self._errors, self._lock = (
            path,
            collecting_logger(library).errors,
            threading.Lock(),
        )
        self._graph: Callable[[], None] | None = None
        if target == "tensorrt-rtx":
            self._start_rtx(library, engine)
        else:
            self._start(engine)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with self._lock:
            for name in self.inputs:
                np.copyto(self._buffers[name].host, inputs[name], casting="no")
            (self._graph or self._enqueue)()
            self._stream.wait()
            return {name: self._buffers[name].host.copy() for name in self.outputs}

    def _start(self, engine: Any) -> None:  # noqa: ANN401 - it ships no types
        self._bind(engine.create_execution_context())
        # The first run does what cannot be recorded (TensorRT developer guide, "CUDA Graphs").
        self._enqueue()
        self._stream.wait()
        self._graph = self._stream.recorded(self._enqueue)

    def _start_rtx(self, library: ModuleType, engine: Any) -> None:  # noqa: ANN401
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        compiled = config.create_runtime_cache()
        kept = _kept(self._path)
        # It refuses what another version, driver or GPU left, and begins anew.
        if kept and not compiled.deserialize(kept):
            _LOG.debug("%s: of another GPU, driver or version; compiled anew", self._path)
        config.set_runtime_cache(compiled)
        # It compiles here, and not in the first run, as no shape is left open.
        self._bind(engine.create_execution_context(config))
        if (content := bytes(compiled.serialize())) != kept:
            _keep(self._path, content)

    def _bind(self, context: Any) -> None:  # noqa: ANN401
        if context is None:
            raise BackendError(
                f"{self._path} loads, and cannot be run: {_reason(self._errors)}. Mostly the GPU's "
                "memory is not enough: close what else uses it."
            )
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.device)
        self._context = context

    def _enqueue(self) -> None:
        for name in self.inputs:
            self._stream.upload(self._buffers[name])
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise BackendError(f"{self._path} does not run: {_reason(self._errors)}.")
        for name in self.outputs:
            self._stream.download(self._buffers[name])


def _library(target: Target) -> ModuleType:
    try:
        return import_module(_MODULES[target])
    except ImportError as error:
        raise AbsentError(f"{TITLES[target]} is not installed ({error}).") from error


def _deserialised(library: ModuleType, path: Path, target: Target, *, host_code: bool) -> Any:  # noqa: ANN401
    log = collecting_logger(library)
    log.errors.clear()
    runtime = library.Runtime(log)
    runtime.engine_host_code_allowed = host_code
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BackendError(
            f"{TITLES[target]} {library.__version__} does not load {path}: {_reason(log.errors)}."
        )
    return engine


def _refit(library: ModuleType, engine: Any, path: Path, weights: Path) -> None:  # noqa: ANN401
    log = collecting_logger(library)
    refitter = library.Refitter(engine, log)
    parser = library.OnnxParserRefitter(refitter, log)
    if not (parser.refit_from_file(str(weights)) and refitter.refit_cuda_engine()):
        raise BackendError(
            f"{path} does not take its weights from {weights}: {_reason(log.errors)}."
        )


def _reason(errors: list[str]) -> str:
    return "; ".join(errors) or "the library does not say why"


def _tensors(
    library: ModuleType,
    engine: Any,  # noqa: ANN401
    path: Path,
) -> dict[str, tuple[TensorSpec, bool]]:
    """Inputs and outputs, each with whether it is an input."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    enters = library.TensorIOMode.INPUT
    return {
        name: (_tensor(engine, path, name), engine.get_tensor_mode(name) == enters)
        for name in names
    }


def _tensor(engine: Any, path: Path, name: str) -> TensorSpec:  # noqa: ANN401
    shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
    if kind not in _DTYPES or min(shape, default=0) < 0:
        raise BackendError(f"{path}: tensor {name!r} is {kind} {shape}, not of a static shape.")
    return TensorSpec(shape, _DTYPES[kind])


def _kept(engine: Path) -> bytes:
    try:
        return engine.with_suffix(KEPT).read_bytes()
    except FileNotFoundError:
        return b""


def _keep(engine: Path, content: bytes) -> None:
    try:
        with staged_file(engine.with_suffix(KEPT)) as path:
            path.write_bytes(content)
    # Where bundles may only be read, each start compiles anew.
    except (OSError, InputError) as error:
        _LOG.debug("what TensorRT-RTX compiled is not kept: %s", error)
