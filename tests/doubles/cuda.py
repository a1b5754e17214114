"""Doubles of CUDA's runtime and of an engine's execution: no machine of the project has a GPU.

They keep what is easily got wrong: work is done when the stream is waited for and not before,
copies go only between memory of the kind that they name, what is recorded is not done, and memory
that was freed is gone. An engine's work is done by ONNX Runtime on the same graph.
"""

import ctypes
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import tensorrt_rtx
from cuda.bindings import runtime

KINDS = runtime.cudaMemcpyKind
DIRECTIONS = {
    KINDS.cudaMemcpyHostToDevice: "up",
    KINDS.cudaMemcpyDeviceToHost: "down",
    KINDS.cudaMemcpyDeviceToDevice: "within",
}
CONTEXT = [
    "execute_async_v3",
    "is_stream_capturable",
    "set_device_memory",
    "set_tensor_address",
]
ENGINE = [
    "create_execution_context",
    "create_runtime_config",
    "device_memory_size_v2",
    "get_tensor_dtype",
    "get_tensor_mode",
    "get_tensor_name",
    "get_tensor_shape",
    "num_io_tensors",
]
CONFIG = [
    "create_runtime_cache",
    "cuda_graph_strategy",
    "set_execution_context_allocation_strategy",
    "set_runtime_cache",
]
"""What the doubles have of tensorrt_rtx's classes."""


class CudaDouble:
    """Of the module ``cuda.bindings.runtime``: the calls that are made, and no other."""

    cudaMemcpyKind = KINDS
    cudaStreamCaptureMode = runtime.cudaStreamCaptureMode
    cudaStreamNonBlocking = runtime.cudaStreamNonBlocking
    cudaGetErrorString = staticmethod(runtime.cudaGetErrorString)

    def __init__(self, *, memory=1 << 30, records=True, devices=1):
        self.memory, self.records, self.devices = memory, records, devices
        # Bytes that were copied, by direction.
        self.moved = dict.fromkeys(DIRECTIONS.values(), 0)
        self.device, self.host, self.graphs = {}, {}, {}
        self.pending, self.recording, self.calls = [], None, []
        self.streams, self.handles = set(), count(1)
        self.last_error, self.current = "cudaSuccess", 0

    def cudaGetDeviceCount(self):
        return self._done(self.devices)

    def cudaSetDevice(self, device):
        assert device < self.devices
        self.current = device
        return self._done()

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == runtime.cudaStreamNonBlocking
        stream = next(self.handles)
        self.streams.add(stream)
        return self._done(stream)

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream)
        return self._done()

    def cudaMalloc(self, size):
        if size > self.memory:
            return self._failed("cudaErrorMemoryAllocation")
        self.memory -= size
        return self._done(self._allocate(self.device, size))

    def cudaMallocHost(self, size):
        return self._done(self._allocate(self.host, size))

    def cudaFree(self, address):
        # It waits for all work.
        self.cudaStreamSynchronize(None)
        self.memory += len(self.device.pop(address))
        return self._done()

    def cudaFreeHost(self, address):
        self.host.pop(address)
        return self._done()

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        return self.cudaMemcpy2DAsync(to, size, source, size, size, 1, kind, stream)

    def cudaMemcpy2DAsync(self, to, pitch, source, width, size, rows, kind, stream):
        # Of dense rows.
        assert width == size <= pitch
        host, device = self.host, self.device
        lasting = (rows - 1) * pitch + size
        require_within(host if kind == KINDS.cudaMemcpyDeviceToHost else device, to, lasting)
        origin = host if kind == KINDS.cudaMemcpyHostToDevice else device
        require_within(origin, source, rows * size)

        def copy():
            self.moved[DIRECTIONS[kind]] += rows * size
            for row in range(rows):
                ctypes.memmove(to + row * pitch, source + row * size, size)

        self.enqueue(stream, copy)
        return self._done()

    def cudaMemsetAsync(self, address, value, size, stream):
        require_within(self.device, address, size)
        self.enqueue(stream, lambda: ctypes.memset(address, value, size))
        return self._done()

    def cudaStreamSynchronize(self, stream):
        assert self.recording is None
        for work in self.pending:
            work()
        self.pending.clear()
        return self._done()

    def cudaStreamBeginCapture(self, stream, mode):
        self.recording = []
        return self._done()

    def cudaStreamEndCapture(self, stream):
        recorded, self.recording = self.recording, None
        if not self.records:
            return self._failed("cudaErrorStreamCaptureInvalidated")
        graph = next(self.handles)
        self.graphs[graph] = recorded
        return self._done(graph)

    def cudaGraphInstantiate(self, graph, flags):
        executable = next(self.handles)
        self.graphs[executable] = self.graphs[graph]
        return self._done(executable)

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return self._done()

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph, stream):
        self.calls.append("launch")
        assert self.recording is None
        self.pending.extend(self.graphs[graph])
        return self._done()

    def cudaGetLastError(self):
        error, self.last_error = self.last_error, "cudaSuccess"
        return (getattr(runtime.cudaError_t, error),)

    def enqueue(self, stream, work):
        assert stream in self.streams
        (self.pending if self.recording is None else self.recording).append(work)

    @property
    def left(self):
        """What was not given back."""
        return [*self.device, *self.host, *self.graphs, *self.streams]

    def _allocate(self, where, size):
        # Whatever was there before: not zeros.
        block = (ctypes.c_uint8 * size)(*([173] * size))
        where[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def _done(self, *results):
        return runtime.cudaError_t.cudaSuccess, *results

    def _failed(self, name):
        self.last_error = name
        return getattr(runtime.cudaError_t, name), None


def require_within(blocks, address, size=1):
    """Require that memory is part of one block."""
    assert any(
        start <= address and address + size <= start + len(block) for start, block in blocks.items()
    ), "memory that is not allocated"


class ContextDouble:
    """Of an execution context, whose activations are in memory that it is given."""

    def __init__(self, engine):
        self.engine, self.addresses, self.workspace = engine, {}, None

    def set_device_memory(self, address, size):
        require_within(self.engine.cuda.device, address, size)
        assert size >= self.engine.device_memory_size_v2
        self.workspace = address, size

    def set_tensor_address(self, name, address):
        require_within(self.engine.cuda.device, address)
        self.addresses[name] = address
        return self.engine.accepts

    def is_stream_capturable(self, stream):
        return True

    def execute_async_v3(self, stream):
        assert self.workspace is not None
        if self.engine.cuda.recording is None:
            self.engine.cuda.calls.append("execute")
        # Recorded work has the addresses of its recording.
        addresses = dict(self.addresses)
        self.engine.cuda.enqueue(stream, lambda: self._work(addresses))
        return self.engine.executes

    def _work(self, addresses):
        session = self.engine.session
        inputs = {n.name: self._array(n, addresses).copy() for n in session.get_inputs()}
        # Whatever shares this memory is lost.
        ctypes.memset(self.workspace[0], 173, self.workspace[1])
        for node, output in zip(session.get_outputs(), session.run(None, inputs), strict=True):
            self._array(node, addresses)[...] = output

    def _array(self, node, addresses):
        count = int(np.prod(node.shape))
        dtype = np.dtype(DTYPES[node.type])
        address = addresses[node.name]
        require_within(self.engine.cuda.device, address, count * dtype.itemsize)
        block = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
        return np.frombuffer(block, dtype).reshape(node.shape)


class EngineDouble:
    """Of an engine: the ONNX graph whose path is its content."""

    def __init__(self, graph, cuda, *, executes=True, accepts=True):
        self.cuda, self.executes, self.accepts = cuda, executes, accepts
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.nodes = {node.name: node for node in [*inputs, *outputs]}
        self.enters = {node.name for node in inputs}
        self.num_io_tensors = len(self.nodes)
        self.device_memory_size_v2 = 500 * len(self.nodes)
        self.configs = []

    def get_tensor_name(self, index):
        return list(self.nodes)[index]

    def get_tensor_shape(self, name):
        return self.nodes[name].shape

    def get_tensor_dtype(self, name):
        kinds = {np.uint8: "UINT8", np.int32: "INT32", np.float32: "FLOAT", np.float16: "HALF"}
        return getattr(tensorrt_rtx.DataType, kinds[DTYPES[self.nodes[name].type]])

    def get_tensor_mode(self, name):
        modes = tensorrt_rtx.TensorIOMode
        return modes.INPUT if name in self.enters else modes.OUTPUT

    def create_runtime_config(self):
        self.configs.append(ConfigDouble())
        return self.configs[-1]

    def create_execution_context(self, config):
        managed = tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
        if config != managed:
            assert config.strategy == managed
            config.compiled.content = b"compiled"
        return ContextDouble(self)


class ConfigDouble:
    """Of a runtime configuration of TensorRT-RTX."""

    cuda_graph_strategy = tensorrt_rtx.CudaGraphStrategy.DISABLED

    def create_runtime_cache(self):
        return CacheDouble()

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def set_runtime_cache(self, cache):
        self.compiled = cache
        return True


class CacheDouble:
    """Of a runtime cache: it takes what it wrote itself."""

    content, given = b"", b""

    def deserialize(self, blob):
        self.given = blob
        if blob == b"compiled":
            self.content = blob
        return blob == b"compiled"

    def serialize(self):
        return self.content


DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class ReaderDouble:
    """Of IStreamReaderV2: without a driver, the library's own cannot be made."""


def read_whole(reader, piece=50_000):
    """Read an engine as TensorRT may: its header first, then all of it, by pieces."""
    start, current = tensorrt_rtx.SeekPosition.SET, tensorrt_rtx.SeekPosition.CUR
    reader.read(piece, 0)
    assert reader.seek(0, start) and reader.seek(0, current)
    return b"".join(iter(lambda: reader.read(piece, 0), b""))


def library_double(
    cuda, *, engines=None, executes=True, accepts=True, refits=None, graph_of=bytes.decode
):
    """Build tensorrt_rtx, or tensorrt, with a runtime that loads engine doubles.

    ``graph_of`` says which graph an engine's bytes stand for.
    """
    engines = [] if engines is None else engines

    class Runtime:
        def __init__(self, log):
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, reader):
            content = read_whole(reader)
            if not content:
                return None
            engine = EngineDouble(graph_of(content), cuda, executes=executes, accepts=accepts)
            engine.host_code = self.engine_host_code_allowed
            engines.append(engine)
            return engine

    class Refitter:
        def __init__(self, engine, log):
            self.engine = engine

        def refit_cuda_engine(self):
            refits.append("refitted")
            return True

    class OnnxParserRefitter:
        def __init__(self, refitter, log):
            self.inputs = refitter.engine.enters

        def refit_from_file(self, model):
            refits.append(model)
            return "frames" in self.inputs and model.endswith("encoder.onnx")

    library = ModuleType("library_double")
    library.Runtime, library.Refitter = Runtime, Refitter
    library.OnnxParserRefitter = OnnxParserRefitter
    library.IStreamReaderV2 = ReaderDouble
    for name in (
        "CudaGraphStrategy",
        "DataType",
        "ExecutionContextAllocationStrategy",
        "ILogger",
        "TensorIOMode",
        "__version__",
    ):
        setattr(library, name, getattr(tensorrt_rtx, name))
    return library


def write_engine(path: Path, graph: Path) -> Path:
    """Write the engine of a graph that the library's double loads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(graph))
    return path
