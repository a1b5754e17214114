"""Fixtures of all tests of the export package."""

import gc
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(scope="session", autouse=True)
def one_registry() -> Iterator[None]:
    """Read PyTorch's table of ONNX operators once, where each export of a graph reads it again.

    That is a quarter of the time of an export as small as those of tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        read = ONNXRegistry.from_torchlib.__func__
        patch.setattr(ONNXRegistry, "from_torchlib", classmethod(cache(read)))
        yield


@pytest.fixture(scope="session", autouse=True)
def rare_collections() -> Iterator[None]:
    """Search for unreachable objects less often: an export makes millions of objects."""
    thresholds = gc.get_threshold()
    gc.set_threshold(20_000, 20, 20)
    yield
    gc.set_threshold(*thresholds)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose time to threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
