"""Export of torch modules to checked ONNX files."""

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
from onnx import TensorProto
from onnxscript.rewriter.pattern import MatchResult, SimplePatternMatcher
from torch import Tensor, nn

from vditrack.errors import VditrackError
from vditrack_export.families.encoder_form import Graph
from vditrack_export.families.onnx_attention import add_function

# The newest opset that TensorRT 10.3 (JetPack 6) parses. Opset 23 has an Attention operator, whose
# CPU kernel in ONNX Runtime allocates tokens x tokens.
OPSET = 20

# A protobuf file cannot exceed 2 GB; larger weights go into a file beside the graph.
_LARGEST_EMBEDDED_WEIGHTS = 1_500_000_000


def export_graph(
    module: nn.Module, examples: Mapping[str, Tensor], path: Path, *, outputs: Sequence[str]
) -> None:
    """Write a module as ONNX for inputs of exactly the shapes and dtypes of the examples.

    Args:
        module: a module that takes the inputs in the order of the examples.
        examples: the example of each input, by name.
        path: the path of the file.
        outputs: the names of the outputs, in the module's order.

    Raises:
        VditrackError: the graph has a shape that is not static, assigns in place, or computes with
            uint8.

    """
    with _quiet_exporter(), _match_by_operator(), _no_stack_traces(), torch.no_grad():
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
    _remove_metadata(program.model)
    _make_weights_contiguous(program.model)
    program.save(path, external_data=count_bytes(module) > _LARGEST_EMBEDDED_WEIGHTS)
    _check_graph(path)


def write_graph(graph: Graph, folder: Path) -> None:
    """Write a graph as ONNX under its own name; see `export_graph`."""
    export_graph(graph.module, graph.examples, folder / graph.file, outputs=graph.outputs)


@contextmanager
def _match_by_operator() -> Iterator[None]:
    """Match the rewrite rules of the exporter only at nodes of the operator that a rule is about.

    At every node, whatever its operator, ONNX Script counts all nodes of the graph for a rule with
    two outputs. So the time grows with the square of the nodes: it is more than half of the export
    of 30 blocks. The graphs that are written are the same.
    """
    match = SimplePatternMatcher.match

    def match_operator(
        self: SimplePatternMatcher,
        model: onnx_ir.Model,
        graph: onnx_ir.Graph | onnx_ir.Function,
        node: onnx_ir.Node,
        **options: object,
    ) -> MatchResult:
        # Rules are matched from the node of their first output.
        if not self.pattern.output_nodes[0].op.matches(node.op_type):
            return MatchResult().fail("The rule is about another operator.")
        return match(self, model, graph, node, **options)

    SimplePatternMatcher.match = match_operator
    try:
        yield
    finally:
        SimplePatternMatcher.match = match


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Collect no stack trace for each operation, which is a tenth of the time of an export."""
    before = torch.fx.config.do_not_emit_stack_traces
    torch.fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = before


def _remove_metadata(model: onnx_ir.Model) -> None:
    """Remove the names of modules and the stack traces that the exporter adds to nodes."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()


def _make_weights_contiguous(model: onnx_ir.Model) -> None:
    """Replace weights that are transposed views by copies made when they are written.

    NumPy writes such views element by element, which takes most of the time of a large export.
    """
    for value in model.graph.initializers.values():
        weight = value.const_value
        assert weight is not None
        if not weight.numpy().flags.c_contiguous:
            value.const_value = onnx_ir.LazyTensor(
                partial(_copy_contiguous, weight),
                weight.dtype,
                onnx_ir.Shape(weight.shape.numpy()),
                name=weight.name,
            )


def _copy_contiguous(weight: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    return onnx_ir.Tensor(np.ascontiguousarray(weight.numpy()), weight.dtype, name=weight.name)


def count_bytes(module: nn.Module) -> int:
    """Return the size of a module's weights and tables, in bytes."""
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _check_graph(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path), load_external_data=False).graph
    # An assignment in place becomes ScatterND, which is slow in TensorRT.
    if any(node.op_type == "ScatterND" for node in graph.node):
        raise VditrackError(f"{path.name} contains ScatterND, because its source assigns in place.")
    # TensorRT casts uint8 and does nothing else with it.
    frames = {
        value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8
    }
    for node in graph.node:
        if node.op_type != "Cast" and frames & set(node.input):
            raise VditrackError(
                f"{path.name}: {node.op_type} takes uint8, because its source does not make the "
                "frames real numbers first."
            )
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if not all(side.dim_value > 0 for side in value.type.tensor_type.shape.dim):
            raise VditrackError(f"{path.name}: the shape of {value.name} is not static.")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings about operators of packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
