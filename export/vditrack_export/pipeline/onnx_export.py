"""From a torch module to a checked ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch
from torch import Tensor, nn

from vditrack.errors import VditrackError
from vditrack_export.families.onnx_attention import add_function

# The newest that TensorRT 10.3 (JetPack 6) parses. Opset 23 has an Attention operator, whose CPU
# kernel in ONNX Runtime keeps tokens x tokens.
OPSET = 20

# A protobuf file cannot pass 2 GB; beyond this the weights go into a file beside the graph.
_LARGEST_EMBEDDED_WEIGHTS = 1_500_000_000


def export_graph(
    module: nn.Module, examples: Mapping[str, Tensor], path: Path, *, outputs: Sequence[str]
) -> None:
    """Write ``module`` as ONNX for inputs of exactly the shapes and dtypes of ``examples``.

    Args:
        module: takes the inputs one by one, in this order.
        examples: by the input's name.
        path: of the file.
        outputs: names, in the order in which the module gives them.

    Raises:
        VditrackError: the graph has a shape that is not static, or writes into tensors.

    """
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    add_function(program.model)
    _without_traces(program.model)
    _laid_out_in_order(program.model)
    program.save(path, external_data=_bytes_of(module) > _LARGEST_EMBEDDED_WEIGHTS)
    _check(path)


def _without_traces(model: onnx_ir.Model) -> None:
    """Drop the stack traces, with paths of this machine, that the exporter notes at every node."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()


def _laid_out_in_order(model: onnx_ir.Model) -> None:
    """Let weights that are transposed views be copied when they are written, one at a time.

    NumPy writes such views element by element, which takes most of a large export's time.
    """
    for value in model.graph.initializers.values():
        weight = value.const_value
        assert weight is not None
        if not weight.numpy().flags.c_contiguous:
            value.const_value = onnx_ir.LazyTensor(
                partial(_copied, weight),
                weight.dtype,
                onnx_ir.Shape(weight.shape.numpy()),
                name=weight.name,
            )


def _copied(weight: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    return onnx_ir.Tensor(np.ascontiguousarray(weight.numpy()), weight.dtype, name=weight.name)


def _bytes_of(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _check(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path), load_external_data=False).graph
    # ScatterND comes from assignment in place, and is slow in TensorRT.
    if any(node.op_type == "ScatterND" for node in graph.node):
        raise VditrackError(f"{path.name} contains ScatterND: its source assigns in place.")
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if not all(side.dim_value > 0 for side in value.type.tensor_type.shape.dim):
            raise VditrackError(f"{path.name}: the shape of {value.name} is not static.")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Drop the exporter's notes on operators of packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
