"""Exports of small graphs in a third less time: what an export reads anew is read once."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch._C import DispatchKey
from torch._export import utils as operators
from torch._ops import OperatorBase
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.onnx._internal.exporter import _decomp
from torch.onnx._internal.exporter._registration import ONNXRegistry


@contextmanager
def speed_up_exports() -> Iterator[None]:
    """Read PyTorch's tables once, search for garbage less often, and run models in one thread.

    Each export of a graph reads the tables of operators again, which is a third of the time of an
    export as small as those of tests. It makes millions of objects, among which Python searches for
    unreachable ones. Models this small only lose time to threads that wait for each other.
    """
    thresholds, threads = gc.get_threshold(), torch.get_num_threads()
    gc.set_threshold(20_000, 20, 20)
    torch.set_num_threads(1)
    # Graphs of torch get their Python code when they run, which most of them never do.
    with pytest.MonkeyPatch.context() as patch, _use_lazy_graph_module(True):
        _read_tables_once(patch)
        yield
    torch.set_num_threads(threads)
    gc.set_threshold(*thresholds)


def _read_tables_once(patch: pytest.MonkeyPatch) -> None:
    read = ONNXRegistry.from_torchlib.__func__
    patch.setattr(ONNXRegistry, "from_torchlib", classmethod(cache(read)))
    patch.setattr(operators, "_materialize_cpp_cia_ops", cache(operators._materialize_cpp_cia_ops))
    patch.setattr(OperatorBase, "py_impl", _register_kernel)
    list_decompositions = cache(_decomp.create_onnx_friendly_decomposition_table)
    patch.setattr(
        _decomp,
        "create_onnx_friendly_decomposition_table",
        # An export removes entries from its table.
        lambda names: dict(list_decompositions(frozenset(names))),
    )


def _register_kernel(
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
