"""CUDA through cuda-python: pinned and device memory, a stream, and graphs of what it does."""

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
    """An array on the host, in memory that the GPU copies from and to by itself, and on the GPU."""

    host: Array
    device: int
    """Address."""


class Stream:
    """A stream of the first GPU, with its own memory, which lives as long as it does.

    Written for the CUDA runtime API as cuda-python 12 and 13 bind it (`cuda.bindings.runtime`).
    """

    def __init__(self) -> None:
        """Open a stream.

        Raises:
            AbsentError: cuda-bindings is not installed.
            BackendError: there is no driver, or none that is new enough, or no GPU.

        """
        self._api = _api()
        self._resources = ExitStack()
        weakref.finalize(self, self._resources.close)
        self.handle = self._owned(
            "cudaStreamDestroy",
            self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking),
        )

    def buffer(self, tensor: TensorSpec) -> Buffer:
        """Allocate memory for a tensor: zeros on the host, not initialised on the GPU.

        Raises:
            BackendError: the memory is not enough.

        """
        size = int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize
        device = self._owned("cudaFree", self._call("cudaMalloc", size))
        pinned = self._owned("cudaFreeHost", self._call("cudaMallocHost", size))
        host = np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(pinned)), tensor.dtype)
        host[...] = 0
        return Buffer(host.reshape(tensor.shape), device)

    def upload(self, buffer: Buffer) -> None:
        """Have the host's array copied to the GPU."""
        to_device = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(buffer.device, buffer.host.ctypes.data, buffer.host.nbytes, to_device)

    def download(self, buffer: Buffer) -> None:
        """Have the GPU's array copied to the host."""
        to_host = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(buffer.host.ctypes.data, buffer.device, buffer.host.nbytes, to_host)

    def wait(self) -> None:
        """Wait until all that was asked for is done."""
        self._call("cudaStreamSynchronize", self.handle)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Record what ``work`` asks of the stream, without doing it, into one CUDA graph.

        Returns:
            What launches the graph; None where it cannot be recorded.

        """
        try:
            graph = self._captured(work)
            launch = self._call("cudaGraphInstantiate", graph, 0)
            self._owned("cudaGraphExecDestroy", launch)
            self._call("cudaGraphDestroy", graph)
        except BackendError as reason:
            _LOG.debug("no CUDA graph: %s", reason)
            # It would be taken for an error of the next launch.
            self._api.cudaGetLastError()
            return None
        return lambda: self._call("cudaGraphLaunch", launch, self.handle)

    def _captured(self, work: Callable[[], None]) -> Any:  # noqa: ANN401 - it ships no types
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
                f"CUDA's {name} finds no memory left, on the GPU or to pin. Close what else uses "
                "it, or take a smaller bundle."
            )
        if int(code):
            text = self._api.cudaGetErrorString(code)[1].decode()
            raise BackendError(
                f"CUDA's {name} failed: {text} ({code.name}). `vditrack doctor` says what the "
                "machine lacks."
            )
        return results[0] if results else None


def _api() -> Any:  # noqa: ANN401
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise AbsentError(
            "cuda-bindings (cuda-python) is not installed. Run `pip install cuda-bindings` of the "
            "driver's CUDA: 'cuda-bindings<13' for CUDA 12, as on JetPack 6."
        ) from error
