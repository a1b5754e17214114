"""Fixtures of all tests of the export package."""

import gc
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch._C import DispatchKey
from torch._export import utils as operators
from torch._ops import OperatorBase
from torch.onnx._internal.exporter import _decomp
from torch.onnx._internal.exporter._registration import ONNXRegistry

from doubles.pipelines import use_one_acceptance_clip


@pytest.fixture(scope="session", autouse=True)
def tables_read_once() -> Iterator[None]:
    """Read PyTorch's tables of operators once, where each export of a graph reads them again.

    That is a third of the time of an export as small as those of tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        read = ONNXRegistry.from_torchlib.__func__
        patch.setattr(ONNXRegistry, "from_torchlib", classmethod(cache(read)))
        patch.setattr(
            operators, "_materialize_cpp_cia_ops", cache(operators._materialize_cpp_cia_ops)
        )
        patch.setattr(OperatorBase, "py_impl", register_kernel)
        list_decompositions = cache(_decomp.create_onnx_friendly_decomposition_table)
        patch.setattr(
            _decomp,
            "create_onnx_friendly_decomposition_table",
            # An export removes entries from its table.
            lambda names: dict(list_decompositions(frozenset(names))),
        )
        yield


def register_kernel(
    operator: OperatorBase, key: object, register: Callable[..., Any] = OperatorBase.py_impl
) -> Callable[..., Any]:
    """Do what ``py_impl`` does, which evaluates its annotations at each of 12,000 calls."""
    if not isinstance(key, DispatchKey):
        return register(operator, key)

    def keep(kernel: Callable[..., Any]) -> Callable[..., Any]:
        assert key not in operator.py_kernels
        operator.py_kernels[key] = kernel
        operator._dispatch_cache.clear()
        return kernel

    return keep


@pytest.fixture(scope="module", autouse=True)
def one_acceptance_clip() -> Iterator[None]:
    """Track one acceptance clip in exports in place of four; `test_export_command` tracks all."""
    with use_one_acceptance_clip():
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
