"""Fixtures for all tests of the runtime."""

import sys

import pytest


@pytest.fixture
def gpu(monkeypatch):
    """Double: a machine with a GPU, and engines that run on it."""
    # Here, since few of the tests need TensorRT's library.
    from doubles.cuda import CudaDouble, library_double  # noqa: PLC0415
    from doubles.engines import HERE  # noqa: PLC0415
    from vditrack.inference import engine_loading  # noqa: PLC0415

    cuda = CudaDouble()
    monkeypatch.setattr(engine_loading, "read_machine", lambda device=0: HERE)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, library_double(cuda))
    return cuda
