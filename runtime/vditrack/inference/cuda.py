"""CUDA through cuda-python: pinned and device memory, a stream, and CUDA graphs."""

import ctypes
import logging
import weakref
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


@dataclass(frozen=True)
class Buffer:
    """An array in pinned host memory, and its counterpart on the GPU."""

    host: Array
    device: int
    """Address on the GPU."""


class Stream:
    """A stream of the first GPU, which owns the memory that it allocates.

    It uses the CUDA runtime API as cuda-python 12 and 13 bind it (`cuda.bindings.runtime`).
    """

    def __init__(self) -> None:
        """Open a stream.

        Raises:
            AbsentError: cuda-bindings is not installed.
            BackendError: There is no GPU, no driver, or the driver is too old.

        """
        self._api = _api()
        self._resources = ExitStack()
        weakref.finalize(self, self._resources.close)
        self.handle = self._owned(
            "cudaStreamDestroy",
            self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking),
        )

    def buffer(self, tensor: TensorSpec) -> Buffer:
        """Allocate memory for a tensor: zeros on the host, uninitialised on the GPU.

        Raises:
            BackendError: There is not enough memory.

        """
        size = int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize
        device = self._owned("cudaFree", self._call("cudaMalloc", size))
        pinned = self._owned("cudaFreeHost", self._call("cudaMallocHost", size))
        host = np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(pinned)), tensor.dtype)
        host[...] = 0
        return Buffer(host.reshape(tensor.shape), device)

    def upload(self, buffer: Buffer) -> None:
        """Enqueue a copy of the host's array to the GPU."""
        to_device = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(buffer.device, buffer.host.ctypes.data, buffer.host.nbytes, to_device)

    def download(self, buffer: Buffer) -> None:
        """Enqueue a copy of the GPU's array to the host."""
        to_host = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(buffer.host.ctypes.data, buffer.device, buffer.host.nbytes, to_host)

    def wait(self) -> None:
        """Wait until all enqueued work is done."""
        self._call("cudaStreamSynchronize", self.handle)

    def capture_graph(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Record the calls that ``work`` enqueues into one CUDA graph, without running them.

        Returns:
            A function that launches the graph; None if the work cannot be captured.

        """
        try:
            graph = self._capture(work)
            launch = self._call("cudaGraphInstantiate", graph, 0)
            self._owned("cudaGraphExecDestroy", launch)
            self._call("cudaGraphDestroy", graph)
        except BackendError as reason:
            _LOG.debug("no CUDA graph: %s", reason)
            # Otherwise the next launch would report this error.
            self._api.cudaGetLastError()
            return None
        return lambda: self._call("cudaGraphLaunch", launch, self.handle)

    def _capture(self, work: Callable[[], None]) -> Any:  # noqa: ANN401 - it ships no types
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.handle, mode)
        try:
            work()
        finally:
            graph = self._call("cudaStreamEndCapture", self.handle)
        return graph

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


def _api() -> Any:  # noqa: ANN401
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise AbsentError(
            "cuda-bindings (cuda-python) is not installed. Run `pip install cuda-bindings` in the "
            "version of the driver's CUDA: 'cuda-bindings<13' for CUDA 12, as on JetPack 6."
        ) from error
