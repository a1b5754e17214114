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
CONTEXT = ["execute_async_v3", "set_tensor_address"]
ENGINE = [
    "create_execution_context",
    "create_runtime_config",
    "get_tensor_dtype",
    "get_tensor_mode",
    "get_tensor_name",
    "get_tensor_shape",
    "num_io_tensors",
]
CONFIG = ["create_runtime_cache", "cuda_graph_strategy", "set_runtime_cache"]
"""What the doubles have of tensorrt_rtx's classes."""


class CudaDouble:
    """Of the module ``cuda.bindings.runtime``: the calls that are made, and no other."""

    cudaMemcpyKind = KINDS
    cudaStreamCaptureMode = runtime.cudaStreamCaptureMode
    cudaStreamNonBlocking = runtime.cudaStreamNonBlocking
    cudaGetErrorString = staticmethod(runtime.cudaGetErrorString)

    def __init__(self, *, memory=1 << 30, records=True):
        self.memory, self.records = memory, records
        self.device, self.host, self.graphs = {}, {}, {}
        self.pending, self.recording, self.calls = [], None, []
        self.streams, self.handles = set(), count(1)

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
        self.memory += len(self.device.pop(address))
        return self._done()

    def cudaFreeHost(self, address):
        self.host.pop(address)
        return self._done()

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        up = kind == KINDS.cudaMemcpyHostToDevice
        assert up or kind == KINDS.cudaMemcpyDeviceToHost
        assert to in (self.device if up else self.host)
        assert source in (self.host if up else self.device)
        self.enqueue(stream, lambda: ctypes.memmove(to, source, size))
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
        self.pending.extend(self.graphs[graph])
        return self._done()

    def cudaGetLastError(self):
        self.calls.append("cleared")
        return self._done()

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
        return getattr(runtime.cudaError_t, name), None


class ContextDouble:
    """Of an execution context."""

    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def set_tensor_address(self, name, address):
        assert address in self.engine.cuda.device
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        if self.engine.cuda.recording is None:
            self.engine.cuda.calls.append("execute")
        self.engine.cuda.enqueue(stream, self._work)
        return self.engine.executes

    def _work(self):
        session = self.engine.session
        inputs = {node.name: self._array(node) for node in session.get_inputs()}
        for node, output in zip(session.get_outputs(), session.run(None, inputs), strict=True):
            self._array(node)[...] = output

    def _array(self, node):
        memory = self.engine.cuda.device[self.addresses[node.name]]
        return np.frombuffer(memory, DTYPES[node.type]).reshape(node.shape)


class EngineDouble:
    """Of an engine: the ONNX graph whose path is its content."""

    def __init__(self, graph, cuda, *, executes=True):
        self.cuda, self.executes = cuda, executes
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.nodes = {node.name: node for node in [*inputs, *outputs]}
        self.enters = {node.name for node in inputs}
        self.num_io_tensors = len(self.nodes)
        self.configs = []

    def get_tensor_name(self, index):
        return list(self.nodes)[index]

    def get_tensor_shape(self, name):
        return self.nodes[name].shape

    def get_tensor_dtype(self, name):
        kinds = {np.uint8: "UINT8", np.float32: "FLOAT", np.float16: "HALF"}
        return getattr(tensorrt_rtx.DataType, kinds[DTYPES[self.nodes[name].type]])

    def get_tensor_mode(self, name):
        modes = tensorrt_rtx.TensorIOMode
        return modes.INPUT if name in self.enters else modes.OUTPUT

    def create_runtime_config(self):
        self.configs.append(ConfigDouble())
        return self.configs[-1]

    def create_execution_context(self, config=None):
        if config is not None:
            config.compiled.content = b"compiled"
        return ContextDouble(self)


class ConfigDouble:
    """Of a runtime configuration of TensorRT-RTX."""

    cuda_graph_strategy = tensorrt_rtx.CudaGraphStrategy.DISABLED

    def create_runtime_cache(self):
        return CacheDouble()

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
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


def library_double(cuda, *, engines=None, executes=True, refits=None, graph_of=bytes.decode):
    """Build tensorrt_rtx, or tensorrt, with a runtime that loads engine doubles.

    ``graph_of`` says which graph an engine's bytes stand for.
    """
    engines = [] if engines is None else engines

    class Runtime:
        def __init__(self, log):
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, content):
            engine = EngineDouble(graph_of(content), cuda, executes=executes)
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
    for name in ("ILogger", "TensorIOMode", "DataType", "CudaGraphStrategy", "__version__"):
        setattr(library, name, getattr(tensorrt_rtx, name))
    return library


def write_engine(path: Path, graph: Path) -> Path:
    """Write the engine of a graph that the library's double loads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(graph))
    return path
