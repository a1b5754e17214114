"""Sessions on TensorRT and TensorRT-RTX engines that `vditrack build` made.

Both have the same Python API ("TensorRT Python API Reference", IExecutionContext). They differ in
how they save launches: TensorRT's work is captured into a CUDA graph here; TensorRT-RTX captures
it by itself and compiles kernels for this GPU, which are cached in a file beside the engine.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vditrack.atomic_files import staged_file
from vditrack.bundle.manifest import FileRecord
from vditrack.errors import BackendError, EngineError, InputError
from vditrack.inference.cuda import Stream
from vditrack.inference.engine_identity import TITLES, Target
from vditrack.inference.isolated_import import import_isolated
from vditrack.inference.session import AbsentError, Array, ArraySession, TensorSpec, check_outputs
from vditrack.inference.trt_log import collecting_logger
from vditrack.input_checks.files import read_file

RUNTIME_CACHE = ".runtime_cache"
"""Suffix of the file with kernels compiled for this GPU; replacing the build removes it."""
_MAX_ENGINE_SIZE, _MAX_CACHE_SIZE = 1 << 40, 1 << 30
"""Largest accepted sizes of files, in bytes; the size of an engine is in its identity."""
_LOG = logging.getLogger("vditrack")
_MODULES: dict[Target, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
}


class EngineSession(ArraySession):
    """An engine loaded on the first GPU; it follows `vditrack.inference.session.Session`.

    Its memory, on the GPU and pinned on the host, is allocated once. Runs from several threads are
    serialised.
    """

    def __init__(
        self,
        path: Path,
        target: Target,
        *,
        host_code: bool = False,
        weights: Path | None = None,
        record: FileRecord | None = None,
        cache: Path | None = None,
    ) -> None:
        """Load an engine, ready to run.

        Args:
            path: Path of the engine.
            target: The library that built it.
            host_code: Whether the engine contains its own runtime, as version compatible ones do.
            weights: The ONNX file that it was built from, if its weights were stripped.
            record: Size and digest that the file has to have; None if they are not known.
            cache: File of the kernels that TensorRT-RTX compiles for this GPU; None to compile
                them at each load.

        Raises:
            AbsentError: The library or cuda-bindings is not installed.
            BackendError: There is no GPU, not enough memory, or the engine does not load.
            EngineError: The file was altered since its build was checked.

        """
        library = _library(target)
        # CUDA first: without a GPU it gives the clearer message.
        self._stream = Stream()
        engine = _deserialise(library, path, target, record, host_code=host_code)
        if weights is not None:
            _refit(library, engine, path, weights)
        tensors = _tensors(library, engine, path)
        self.inputs = {name: tensor for name, (tensor, enters) in tensors.items() if enters}
        self.outputs = {name: tensor for name, (tensor, enters) in tensors.items() if not enters}
        self._buffers = {name: self._stream.buffer(tensor) for name, (tensor, _) in tensors.items()}
        self._path, self._cache, self._errors, self._lock = (
            path,
            cache,
            collecting_logger(library).errors,
            threading.Lock(),
        )
        self._graph: Callable[[], None] | None = None
        if target == "tensorrt-rtx":
            self._start_rtx(library, engine)
        else:
            self._start(engine)

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine once, as `vditrack.inference.session.ArraySession` defines it."""
        with self._lock:
            try:
                for name in self.inputs:
                    np.copyto(self._buffers[name].host, inputs[name], casting="no")
                (self._graph or self._enqueue)()
                self._stream.wait()
            # An input that is absent or of another shape or dtype, or what CUDA's binding raises.
            except (BackendError, KeyError, TypeError, ValueError, RuntimeError) as error:
                raise BackendError(f"{self._path} loads but fails to run: {error}") from error
            outputs = {name: self._buffers[name].host.copy() for name in self.outputs}
        check_outputs(self._path, outputs)
        return outputs

    def _start(self, engine: Any) -> None:  # noqa: ANN401 - it ships no types
        self._bind(engine.create_execution_context())
        # The first run does what cannot be captured (TensorRT developer guide, "CUDA Graphs").
        self._enqueue()
        self._stream.wait()
        self._graph = self._stream.capture_graph(self._enqueue)

    def _start_rtx(self, library: ModuleType, engine: Any) -> None:  # noqa: ANN401
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache = config.create_runtime_cache()
        stored = _read_runtime_cache(self._cache)
        # A cache of another version, driver or GPU is refused; the kernels are compiled again.
        if stored and not cache.deserialize(stored):
            _LOG.debug("%s: its runtime cache is of another GPU, driver or version", self._path)
        config.set_runtime_cache(cache)
        # Compilation happens here and not in the first run, since all shapes are static.
        self._bind(engine.create_execution_context(config))
        if (content := bytes(cache.serialize())) != stored:
            _write_runtime_cache(self._cache, content)

    def _bind(self, context: Any) -> None:  # noqa: ANN401
        if context is None:
            raise BackendError(
                f"{self._path} loads but cannot run: {_format_errors(self._errors)}. Most often "
                "the GPU is out of memory: close other programs that use it."
            )
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.device)
        self._context = context

    def _enqueue(self) -> None:
        for name in self.inputs:
            self._stream.upload(self._buffers[name])
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise BackendError(f"{self._path} fails to run: {_format_errors(self._errors)}.")
        for name in self.outputs:
            self._stream.download(self._buffers[name])


def _library(target: Target) -> ModuleType:
    try:
        return import_isolated(_MODULES[target])
    except ModuleNotFoundError as error:
        raise AbsentError(f"{TITLES[target]} is not installed ({error}).") from error
    except ImportError as error:
        raise BackendError(
            f"{TITLES[target]} does not load ({error}). `vditrack doctor` shows what to install."
        ) from error


def _deserialise(
    library: ModuleType, path: Path, target: Target, record: FileRecord | None, *, host_code: bool
) -> Any:  # noqa: ANN401
    log = collecting_logger(library)
    log.errors.clear()
    runtime = library.Runtime(log)
    runtime.engine_host_code_allowed = host_code
    engine = runtime.deserialize_cuda_engine(_read_engine(path, record))
    if engine is None:
        raise BackendError(
            f"{TITLES[target]} {library.__version__} does not load {path}: "
            f"{_format_errors(log.errors)}."
        )
    return engine


def _refit(library: ModuleType, engine: Any, path: Path, weights: Path) -> None:  # noqa: ANN401
    log = collecting_logger(library)
    refitter = library.Refitter(engine, log)
    parser = library.OnnxParserRefitter(refitter, log)
    if not (parser.refit_from_file(str(weights)) and refitter.refit_cuda_engine()):
        raise BackendError(
            f"{path} does not accept the weights of {weights}: {_format_errors(log.errors)}."
        )


def _format_errors(errors: list[str]) -> str:
    return "; ".join(errors) or "the library gives no reason"


def _tensors(
    library: ModuleType,
    engine: Any,  # noqa: ANN401
    path: Path,
) -> dict[str, tuple[TensorSpec, bool]]:
    """Return inputs and outputs by name, each with whether it is an input."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    enters = library.TensorIOMode.INPUT
    return {
        name: (_tensor(engine, path, name), engine.get_tensor_mode(name) == enters)
        for name in names
    }


def _tensor(engine: Any, path: Path, name: str) -> TensorSpec:  # noqa: ANN401
    shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
    if kind not in _DTYPES or min(shape, default=0) < 0:
        raise BackendError(
            f"{path}: tensor {name!r} is {kind} {shape}; static shapes of uint8, int32, "
            "float32 or float16 are needed. Build the engine again."
        )
    return TensorSpec(shape, _DTYPES[kind])


def _read_engine(path: Path, record: FileRecord | None) -> bytes:
    """Return the content of an engine; it is compared once more, in the form that is used."""
    try:
        content = read_file(path, _MAX_ENGINE_SIZE, follow_links=False)
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error.strerror}.") from error
    if record is not None and record.sha256 != hashlib.sha256(content).hexdigest():
        raise EngineError(f"{path} was altered after its build was checked. Copy it again.")
    return content


def _read_runtime_cache(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return read_file(path, _MAX_CACHE_SIZE, follow_links=False)
    except FileNotFoundError:
        return b""
    except OSError as error:
        _LOG.debug("%s is not read: %s", path, error.strerror)
        return b""


def _write_runtime_cache(path: Path | None, content: bytes) -> None:
    if path is None:
        return
    try:
        # A build that was replaced meanwhile must not come back.
        with staged_file(path, make_folders=False) as staged:
            staged.write_bytes(content)
    # With a read-only bundle, each start compiles again.
    except (OSError, InputError) as error:
        _LOG.debug("the runtime cache of TensorRT-RTX is not stored: %s", error)
