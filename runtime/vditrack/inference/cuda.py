"""CUDA through cuda-python: pinned and device memory, a stream, and CUDA graphs."""

import ctypes
import logging
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from vditrack.errors import BackendError
from vditrack.inference.session import AbsentError, Array, TensorSpec

_LOG = logging.getLogger("vditrack")
_OUT_OF_MEMORY = "cudaErrorMemoryAllocation"
ALIGNMENT = 256
"""Bytes to which CUDA aligns allocations; TensorRT asks for it in its workspace."""


@dataclass(frozen=True)
class Memory:
    """A block of the GPU's memory, which is given back when nothing refers to it."""

    owner: "Gpu"
    address: int
    nbytes: int


@dataclass(frozen=True)
class Buffer:
    """An array in pinned host memory, and its counterpart on the GPU."""

    host: Array
    device: int
    """Address on the GPU."""


class Gpu:
    """A GPU as the sessions of one bundle share it: its stream, its memory, and a workspace.

    It uses the CUDA runtime API as cuda-python 12 and 13 bind it (`cuda.bindings.runtime`). All
    work is in one stream, so memory can be reused as soon as the host drops it. Threads hold
    ``lock`` while they use it, and call `activate` first.
    """

    def __init__(self, device: int = 0) -> None:
        """Open a stream.

        Args:
            device: Number of the GPU, as CUDA counts.

        Raises:
            AbsentError: cuda-bindings is not installed.
            BackendError: There is no such GPU, no driver, or the driver is too old.

        """
        self._api = _api()
        self._device = device
        self._resources = ExitStack()
        weakref.finalize(self, self._resources.close)
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._workspace_size, self._workspace = 0, (0, 0)
        self.lock = threading.RLock()
        if device >= (count := self._call("cudaGetDeviceCount")):
            raise BackendError(
                f"there is no GPU {device}: CUDA finds {count}, counted from 0. Give another "
                "--device; CUDA_VISIBLE_DEVICES may hide some."
            )
        self.activate()
        self.handle = self._owned(
            "cudaStreamDestroy",
            self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking),
        )
        self._resources.callback(_free_all, self._api, self._free)

    def activate(self) -> None:
        """Make this the GPU of the calling thread: CUDA has one for each thread."""
        self._call("cudaSetDevice", self._device)

    def allocate(self, size: int) -> Memory:
        """Return uninitialised memory.

        Memory that was given back is reused for the same size, so that streams of frames use the
        same addresses again and again, as captured graphs need.

        Raises:
            BackendError: There is not enough memory.

        """
        if not size:
            return Memory(self, 0, 0)
        free = self._free[size]
        address = free.pop() if free else self._allocate(size)
        while len(free) > 1:
            self._call("cudaFree", free.pop(0))
        memory = Memory(self, address, size)
        weakref.finalize(memory, free.append, address).atexit = False
        return memory

    def buffer(self, tensor: TensorSpec) -> Buffer:
        """Allocate memory for a tensor that crosses: zeros on the host, nothing on the GPU.

        Raises:
            BackendError: There is not enough memory.

        """
        size = tensor.nbytes
        device = self._owned("cudaFree", self._call("cudaMalloc", size))
        pinned = self._owned("cudaFreeHost", self._call("cudaMallocHost", size))
        host = np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(pinned)), tensor.dtype)
        host[...] = 0
        return Buffer(host.reshape(tensor.shape), device)

    def reserve_workspace(self, size: int) -> None:
        """Announce how much memory an engine needs for its activations while it runs."""
        self._workspace_size = max(self._workspace_size, size)

    def workspace(self, size: int) -> int:
        """Return the address of memory that all engines share while they run.

        It is as large as the largest engine announced so far needs.
        """
        if self._workspace[1] < size:
            self._workspace_size = max(self._workspace_size, size)
            address = self._owned("cudaFree", self._allocate(self._workspace_size))
            self._workspace = (int(address), self._workspace_size)
        return self._workspace[0]

    def upload(self, buffer: Buffer) -> None:
        """Enqueue a copy of the host's array to the GPU."""
        to_device = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(buffer.device, buffer.host.ctypes.data, buffer.host.nbytes, to_device)

    def download(self, buffer: Buffer) -> None:
        """Enqueue a copy of the GPU's array to the host."""
        to_host = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(buffer.host.ctypes.data, buffer.device, buffer.host.nbytes, to_host)

    def copy(self, to: int, source: int, size: int) -> None:
        """Enqueue a copy within the GPU's memory."""
        if size:
            self._copy(to, source, size, self._api.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def copy_rows(self, to: int, pitch: int, source: int, width: int, rows: int) -> None:
        """Enqueue a copy within the GPU's memory of dense rows to rows ``pitch`` bytes apart."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        sizes = (width, width, rows)
        self._call("cudaMemcpy2DAsync", to, pitch, source, *sizes, kind, self.handle)

    def clear(self, memory: Memory) -> None:
        """Enqueue zeros for a block."""
        if memory.nbytes:
            self._call("cudaMemsetAsync", memory.address, 0, memory.nbytes, self.handle)

    def wait(self) -> None:
        """Wait until all enqueued work is done.

        Raises:
            BackendError: Some of it failed.

        """
        self._call("cudaStreamSynchronize", self.handle)

    def check_launches(self) -> None:
        """Raise a `BackendError` if work of this thread was not launched."""
        self._call("cudaGetLastError")

    def capture_graph(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Record the calls that ``work`` enqueues into one CUDA graph, without running them.

        Returns:
            A function that launches the graph while it exists; None if the work cannot be captured.

        """
        try:
            graph = self._capture(work)
            launch = self._call("cudaGraphInstantiate", graph, 0)
            self._call("cudaGraphDestroy", graph)
        except BackendError as reason:
            _LOG.debug("no CUDA graph: %s", reason)
            # Otherwise the next launch would report this error.
            self._api.cudaGetLastError()
            return None
        return _Launch(self._api, self._call, launch, self.handle)

    def _capture(self, work: Callable[[], None]) -> Any:  # noqa: ANN401 - it ships no types
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.handle, mode)
        try:
            work()
        finally:
            graph = self._call("cudaStreamEndCapture", self.handle)
        return graph

    def _allocate(self, size: int) -> int:
        try:
            return int(self._call("cudaMalloc", size))
        except BackendError:
            _free_all(self._api, self._free)
            # The error of the attempt is no error of the next launch.
            self._api.cudaGetLastError()
            return int(self._call("cudaMalloc", size))

    def _copy(self, to: int, source: int, size: int, kind: object) -> None:
        self._call("cudaMemcpyAsync", to, source, size, kind, self.handle)

    def _owned(self, release: str, resource: Any) -> Any:  # noqa: ANN401
        self._resources.callback(getattr(self._api, release), resource)
        return resource

    def _call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401
        code, *results = getattr(self._api, name)(*arguments)
        if code.name == _OUT_OF_MEMORY:
            raise BackendError(
                f"CUDA's {name} failed: out of GPU memory or pinned memory. Close other programs "
                "that use it, or take a smaller bundle."
            )
        if int(code):
            text = self._api.cudaGetErrorString(code)[1].decode()
            raise BackendError(
                f"CUDA's {name} failed: {text} ({code.name}). `vditrack doctor` shows what is "
                "missing."
            )
        return results[0] if results else None


class _Launch:
    """A captured graph that is launched when it is called."""

    def __init__(self, api: Any, call: Callable[..., Any], graph: Any, stream: Any) -> None:  # noqa: ANN401
        weakref.finalize(self, api.cudaGraphExecDestroy, graph)
        self._call, self._graph, self._stream = call, graph, stream

    def __call__(self) -> None:
        self._call("cudaGraphLaunch", self._graph, self._stream)


def _free_all(api: Any, free: dict[int, list[int]]) -> None:  # noqa: ANN401
    for addresses in free.values():
        while addresses:
            api.cudaFree(addresses.pop())


def _api() -> Any:  # noqa: ANN401
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise AbsentError(
            "cuda-bindings (cuda-python) is not installed. Run `pip install cuda-bindings` in the "
            "version of the driver's CUDA: 'cuda-bindings<13' for CUDA 12, as on JetPack 6."
        ) from error
