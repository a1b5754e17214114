"""Sessions on TensorRT and TensorRT-RTX engines that `vditrack build` made.

Both have the same Python API ("TensorRT Python API Reference", IExecutionContext). They differ in
how they save launches: TensorRT's work is captured into a CUDA graph here; TensorRT-RTX captures
it by itself and compiles kernels for this GPU, which are cached in a file beside the engine.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vditrack.atomic_files import staged_file
from vditrack.bundle.manifest import FileRecord
from vditrack.errors import BackendError, InputError
from vditrack.inference.cuda import Gpu, Memory
from vditrack.inference.device_state import DeviceArray, DeviceState, StateLayout, join_on_device
from vditrack.inference.engine_identity import Target
from vditrack.inference.engine_library import (
    deserialise,
    format_errors,
    import_library,
    read_tensors,
    refit,
)
from vditrack.inference.session import (
    Array,
    Given,
    State,
    check_outputs,
    find_state,
    join_parts,
    require_state,
)
from vditrack.inference.trt_log import collecting_logger
from vditrack.input_checks.files import read_file

RUNTIME_CACHE = ".runtime_cache"
"""Suffix of the file with kernels compiled for this GPU; replacing the build removes it."""
_MAX_CACHE_SIZE = 1 << 30
"""Largest accepted size of a file with compiled kernels, in bytes."""
_MAX_GRAPHS = 16
"""Captured graphs of an engine. A stream with state alternates between two; n streams that take
turns use n + 1."""
_LOG = logging.getLogger("vditrack")
_Key = tuple[int | str | bool, ...]
"""Addresses of a captured graph, and which inputs and outputs cross."""


class EngineSession:
    """An engine loaded on a GPU; it follows `vditrack.inference.session.Session`.

    Only inputs and outputs that cross have pinned memory on the host. The state stays on the GPU:
    a run fills another block of memory with what replaces it, and the two change places, so nothing
    is copied; rings get a copy of one slot. Runs of a bundle's engines are serialised, because they
    share a workspace for their activations.
    """

    def __init__(
        self,
        path: Path,
        target: Target,
        *,
        open_gpu: Callable[[], Gpu] = Gpu,
        host_code: bool = False,
        weights: Path | None = None,
        record: FileRecord | None = None,
        cache: Path | None = None,
    ) -> None:
        """Load an engine, ready to run.

        Args:
            path: Path of the engine.
            target: The library that built it.
            open_gpu: Returns the GPU that the engines of a bundle share.
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
        library = import_library(target)
        # CUDA first: without a GPU it gives the clearer message.
        self._gpu = open_gpu()
        self._path, self._errors = path, collecting_logger(library).errors
        with self._gpu.lock:
            self._gpu.activate()
            engine = deserialise(library, path, target, record, host_code=host_code)
            if weights is not None:
                refit(library, engine, path, weights)
            tensors = read_tensors(library, engine, path)
            self.inputs = {name: tensor for name, (tensor, enters) in tensors.items() if enters}
            self.outputs = {
                name: tensor for name, (tensor, enters) in tensors.items() if not enters
            }
            self._layout = StateLayout(find_state(self.inputs, self.outputs))
            self._allocate()
            self._can_capture = True
            self._workspace_size = int(engine.device_memory_size_v2)
            self._gpu.reserve_workspace(self._workspace_size)
            start = self._start_rtx if target == "tensorrt-rtx" else self._start
            # Engine, configuration and runtime cache live as long as the context that uses them.
            self._context, self._owners = start(library, engine, cache)

    def new_state(self) -> DeviceState:
        """Return a state of zeros on the GPU, as `vditrack.inference.session.Session` defines it.

        Raises:
            BackendError: There is not enough memory.

        """
        return DeviceState.zeros(self._gpu, self._layout)

    def run(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> dict[str, Array]:
        """Run the engine once, as `vditrack.inference.session.Session` defines it."""
        with self._gpu.lock:
            self._execute(inputs, state, slot, self._download_all)
            outputs = {name: buffer.host.copy() for name, buffer in self._leaving.items()}
        check_outputs(self._path, outputs)
        return outputs

    def run_resident(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> dict[str, DeviceArray]:
        """Run the engine once, as `vditrack.inference.session.Session` defines it."""
        with self._gpu.lock:
            self._execute(inputs, state, slot, None)
            outputs = {}
            for name, buffer in self._leaving.items():
                memory = self._gpu.allocate(self.outputs[name].nbytes)
                self._gpu.copy(memory.address, buffer.device, memory.nbytes)
                outputs[name] = DeviceArray(memory, self.outputs[name])
        return outputs

    def _allocate(self) -> None:
        """Allocate what crosses, and the outputs that are written into rings."""
        gpu, state = self._gpu, self._layout.tensors
        self._entering = {
            name: gpu.buffer(spec) for name, spec in self.inputs.items() if name not in state.specs
        }
        self._leaving = {
            name: gpu.buffer(spec)
            for name, spec in self.outputs.items()
            if name not in state.replaced and name not in state.rings
        }
        self._slots = {name: gpu.allocate(self.outputs[name].nbytes) for name in state.rings}
        self._graphs: OrderedDict[_Key, Callable[[], None] | None] = OrderedDict()
        self._bound: dict[str, int] = {}

    def _execute(
        self,
        inputs: Mapping[str, Given],
        state: State | None,
        slot: int,
        download: Callable[[], None] | None,
    ) -> None:
        """Run the engine and update the state."""
        try:
            self._gpu.activate()
            state = self._require_state(state)
            uploads = [
                name for name, buffer in self._entering.items() if self._give(name, inputs[name])
            ]
            written = self._gpu.allocate(self._layout.replaced.size)
            addresses = self._addresses(state, written)

            def work() -> None:
                for name in uploads:
                    self._gpu.upload(self._entering[name])
                self._enqueue()
                if download is not None:
                    download()

            self._launch((*addresses.values(), *uploads, download is None), addresses, work)
            self._write_slots(state, slot)
            self._gpu.wait()
            state.replaced = written
        # An input that is absent or of another shape or dtype, or what CUDA's binding raises.
        except (BackendError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BackendError(f"{self._path} loads but fails to run: {error}") from error

    def _require_state(self, state: State | None) -> DeviceState:
        tensors = self._layout.tensors
        if state is None and not tensors.specs:
            return self.new_state()
        if state is None:
            raise ValueError("it needs a state")
        found = require_state(state, DeviceState)
        if (found.layout.specs, found.layout.rings.offsets) != (
            tensors.specs,
            self._layout.rings.offsets,
        ):
            raise ValueError("the state is of another graph")
        return found

    def _give(self, name: str, value: Given) -> bool:
        """Put an input where it enters; return whether it is still to be uploaded."""
        buffer = self._entering[name]
        parts = value if isinstance(value, Sequence) else [value]
        arrays = [part for part in parts if isinstance(part, DeviceArray)]
        if arrays and len(arrays) == len(parts):
            join_on_device(self._gpu, buffer.device, self.inputs[name], arrays)
            return False
        array = join_parts(value)
        if array.shape != buffer.host.shape:
            raise ValueError(f"input {name!r} is {array.shape} and not {buffer.host.shape}")
        np.copyto(buffer.host, array, casting="no")
        return True

    def _addresses(self, state: DeviceState, written: Memory) -> dict[str, int]:
        """Return the addresses of the tensors that differ between runs."""
        found = {name: at for name, at in state.addresses().items() if name in self.inputs}
        offsets = self._layout.replaced.offsets
        for name, replaced in self._layout.tensors.replaced.items():
            found[name] = written.address + offsets[replaced]
        return found

    def _launch(self, key: _Key, addresses: dict[str, int], work: Callable[[], None]) -> None:
        """Do the work, as one CUDA graph if it was done before with the same addresses."""
        repeated = key in self._graphs
        graph = self._graphs.pop(key, None)
        if graph is None:
            self._bind(addresses)
            # The first run does what cannot be captured (TensorRT developer guide, "CUDA Graphs").
            if repeated and self._captures():
                graph = self._gpu.capture_graph(work)
                self._can_capture = graph is not None
        (graph or work)()
        self._graphs[key] = graph
        if len(self._graphs) > _MAX_GRAPHS:
            self._graphs.popitem(last=False)

    def _captures(self) -> bool:
        """Return whether the engine's work can be captured here."""
        stream = int(self._gpu.handle)
        # TensorRT has no such question: it fails to capture.
        asks = hasattr(self._context, "is_stream_capturable")
        return self._can_capture and (not asks or self._context.is_stream_capturable(stream))

    def _bind(self, addresses: dict[str, int]) -> None:
        """Set the addresses that changed."""
        self._errors.clear()
        fixed = {
            name: buffer.device for name, buffer in {**self._entering, **self._leaving}.items()
        }
        fixed |= {name: memory.address for name, memory in self._slots.items()}
        if not self._bound and self._workspace_size:
            workspace = self._gpu.workspace(self._workspace_size)
            self._context.set_device_memory(workspace, self._workspace_size)
        for name, address in {**fixed, **addresses}.items():
            if self._bound.get(name) == address:
                continue
            if not self._context.set_tensor_address(name, address):
                raise BackendError(
                    f"tensor {name!r} takes no address: {format_errors(self._errors)}."
                )
            self._bound[name] = address

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._gpu.handle)):
            raise BackendError(format_errors(self._errors))
        self._gpu.check_launches()

    def _download_all(self) -> None:
        for buffer in self._leaving.values():
            self._gpu.download(buffer)

    def _write_slots(self, state: DeviceState, slot: int) -> None:
        """Enqueue copies of the outputs that are slots into the rings of the state."""
        addresses = state.addresses()
        for name, ring in self._layout.tensors.rings.items():
            stride = self._layout.tensors.specs[ring].nbytes // self.inputs[ring].shape[0]
            size = self._slots[name].nbytes
            if not 0 <= slot * stride <= self._layout.tensors.specs[ring].nbytes - size:
                raise ValueError(f"ring {ring!r} has no slot {slot}")
            self._gpu.copy(addresses[ring] + slot * stride, self._slots[name].address, size)

    def _start(self, library: ModuleType, engine: Any, _cache: Path | None) -> tuple[Any, Any]:  # noqa: ANN401 - it ships no types
        """Return an execution context, and what has to live as long."""
        strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
        return self._require_context(engine.create_execution_context(strategy)), engine

    def _start_rtx(self, library: ModuleType, engine: Any, path: Path | None) -> tuple[Any, Any]:  # noqa: ANN401
        """Return an execution context, and what has to live as long."""
        config = engine.create_runtime_config()
        # With the state the addresses change, which its own capture is not documented to follow.
        self._can_capture = bool(self._layout.tensors.specs)
        strategies = library.CudaGraphStrategy
        config.cuda_graph_strategy = (
            strategies.DISABLED if self._can_capture else strategies.WHOLE_GRAPH_CAPTURE
        )
        config.set_execution_context_allocation_strategy(
            library.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        cache = config.create_runtime_cache()
        stored = _read_runtime_cache(path)
        # A cache of another version, driver or GPU is refused; the kernels are compiled again.
        if stored and not cache.deserialize(stored):
            _LOG.debug("%s: its runtime cache is of another GPU, driver or version", self._path)
        if not config.set_runtime_cache(cache):
            _LOG.debug("%s: TensorRT-RTX takes no runtime cache", self._path)
        # Compilation happens here and not in the first run, since all shapes are static.
        context = self._require_context(engine.create_execution_context(config))
        if (content := bytes(cache.serialize())) != stored:
            _write_runtime_cache(path, content)
        return context, (engine, config, cache)

    def _require_context(self, context: Any) -> Any:  # noqa: ANN401
        if context is None:
            raise BackendError(
                f"{self._path} loads but cannot run: {format_errors(self._errors)}. Most often "
                "the GPU is out of memory: close other programs that use it."
            )
        return context


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
