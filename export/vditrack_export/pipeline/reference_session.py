"""Graphs below FP32, run by ONNX's reference implementation with every rounding of the graph.

ONNX Runtime does not show them on the CPU: it has no BF16 products, and computes those of FP16 in
FP32, without the graph's casts, so that only weights are rounded and nothing overflows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from vditrack.inference.session import Array, ArraySession, TensorSpec


class ReferenceSession(ArraySession):
    """A graph that is run node by node: see `vditrack.inference.session.Session`."""

    def __init__(self, graph: Path) -> None:
        """Load an ONNX file with its external weights; it has no subgraphs and no functions."""
        model = onnx.load(str(graph))
        # The reference implementation multiplies element by element.
        products = [
            _make_operator("MatMul", _multiply),
            _make_operator("Gemm", _multiply_and_add),
            _make_operator("Conv", _convolve),
        ]
        self._evaluator = ReferenceEvaluator(model, new_ops=products)
        self.inputs = {value.name: _specify(value) for value in model.graph.input}
        self.outputs = {value.name: _specify(value) for value in model.graph.output}

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once: named arrays in, named arrays out."""
        nodes = self._evaluator.rt_nodes_
        # The evaluator's own loop keeps the results of all nodes to the end.
        uses = Counter(name for node in nodes for name in node.input)
        values: dict[str, Any] = {"": None, **self._evaluator.rt_inits_, **inputs}
        # Numbers beyond a precision become infinite, and are found in the outputs.
        with np.errstate(over="ignore", invalid="ignore"):
            for node in nodes:
                results = node.run(*[values[name] for name in node.input])
                # Some operators have more outputs than a graph uses.
                values.update(zip(node.output, results, strict=False))
                for name in node.input:
                    uses[name] -= 1
                    if name and not uses[name] and name not in self.outputs:
                        del values[name]
        return {name: values[name] for name in self.outputs}


def _make_operator(name: str, run: Callable[..., tuple[NDArray[Any]]]) -> type[OpRun]:
    """Return a product as GPUs compute it: summed in FP32, rounded once."""
    return type(name, (OpRun,), {"op_domain": "", "_run": run})


def _multiply(_node: OpRun, a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any]]:
    return (torch.matmul(_widen(a), _widen(b)).numpy().astype(a.dtype),)


def _multiply_and_add(
    _node: OpRun,
    a: NDArray[Any],
    b: NDArray[Any],
    c: NDArray[Any] | None = None,
    **attributes: float,
) -> tuple[NDArray[Any]]:
    left = _widen(a).T if attributes["transA"] else _widen(a)
    right = _widen(b).T if attributes["transB"] else _widen(b)
    product = left @ right * attributes["alpha"]
    if c is not None:
        product = product + _widen(c) * attributes["beta"]
    return (product.numpy().astype(a.dtype),)


def _convolve(
    _node: OpRun,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None = None,
    **attributes: Any,  # noqa: ANN401 - lists of numbers of the operator Conv
) -> tuple[NDArray[Any]]:
    spatial = weight.ndim - 2
    pads = attributes["pads"] or [0] * 2 * spatial
    # ONNX lists the beginnings of all axes and then the ends, torch both of the last axis first.
    sides = [side for axis in reversed(range(spatial)) for side in pads[axis::spatial]]
    convolve = F.conv2d if spatial == 2 else F.conv3d
    product = convolve(
        F.pad(_widen(x), sides),
        _widen(weight),
        None if bias is None else _widen(bias),
        stride=attributes["strides"] or 1,
        dilation=attributes["dilations"] or 1,
        groups=attributes["group"] or 1,
    )
    return (product.numpy().astype(x.dtype),)


def _widen(x: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(x.astype(np.float32))


def _specify(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(tuple(side.dim_value for side in tensor.shape.dim), dtype)
