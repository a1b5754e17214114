"""Attention of graphs in FP32: one node, and a function for libraries without its kernel."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from doubles.small_families import SmallFamily
from vditrack_export.families.layers import Attend
from vditrack_export.families.read_spec import Cut
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.precision import lower_precision

pytestmark = pytest.mark.slow

HEADS, CHANNELS, ASKING, EVERY = 3, 8, 5, 7


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = Attend()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.attend(query, key, value)


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    counts = {"query": ASKING, "key": EVERY, "value": EVERY}
    return {name: torch.randn(1, count, HEADS, CHANNELS) for name, count in counts.items()}


def truth(query: Tensor, key: Tensor, value: Tensor) -> np.ndarray:
    """Of softmax(q k / sqrt(d)) v, head by head, in float64."""
    q, k, v = (x[0].double().transpose(0, 1) for x in (query, key, value))
    weights = (q @ k.mT / math.sqrt(CHANNELS)).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1)[None].numpy()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("attention") / "attention.onnx"
    export_graph(Attention().eval(), tensors(), file, outputs=["attended"])
    return file


def test_the_kernel_and_the_function_are_attention(graph: Path) -> None:
    model, given = onnx.load(graph), {name: x.numpy() for name, x in tensors().items()}
    inlined = inline_local_functions(model)
    assert {node.domain for node in model.graph.node} == {"", "com.microsoft"}
    assert {node.domain for node in inlined.graph.node} == {""}
    expected = truth(**tensors())
    (by_kernel,) = session(graph).run(None, given)
    (by_function,) = ReferenceEvaluator(model).run(None, given)
    (by_operators,) = session(inlined.SerializeToString()).run(None, given)
    for found in (by_kernel, by_function, by_operators):
        assert found.shape == (1, ASKING, HEADS * CHANNELS)
        assert np.abs(found - expected).max() <= 1e-6


def session(model: Path | bytes, options: onnxruntime.SessionOptions | None = None):
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_torch_computes_the_same_without_a_graph() -> None:
    given = tensors()
    found = Attention()(**given)
    expected = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in given.values()))
    assert torch.equal(found, expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_below_fp32_there_is_no_such_node(tmp_path: Path, precision: str) -> None:
    module, file = Attention().eval(), tmp_path / "attention.onnx"
    lower_precision(module, precision)
    export_graph(module, tensors(), file, outputs=["attended"])
    model = onnx.load(file)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions


def test_no_tensor_is_of_tokens_by_tokens(tmp_path: Path) -> None:
    """In the graph as ONNX Runtime runs it; in the function's operators there are such tensors."""
    small = SmallFamily("wan", "single-latents")
    path = small.path(Cut(2, (0,), small.some_channels, described=2), prompt=(1, 0))
    file, plain = tmp_path / "features.onnx", tmp_path / "plain.onnx"
    export_graph(path, {"latents": small.latents}, file, outputs=["descriptors"])
    onnx.save(inline_local_functions(onnx.load(file)), plain)
    every, asking = math.prod(small.grid), 2 * math.prod(small.grid[1:])
    for graph, expected in ((file, set()), (plain, {(every, every), (asking, every)})):
        squares = {shape[-2:] for shape in optimised_shapes(graph)}
        assert squares & {(every, every), (every, asking), (asking, every)} == expected


def optimised_shapes(graph: Path) -> list[tuple[int, ...]]:
    """Of all that ONNX Runtime computes on the way, once it has optimised the graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(graph.with_suffix(".optimised"))
    options.log_severity_level = 3
    session(graph, options)
    model = onnx.load(options.optimized_model_filepath)
    known = {value.name for value in model.graph.output}
    between = {name for node in model.graph.node for name in node.output if name} - known
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(between))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    running = session(model.SerializeToString(), options)
    (given,) = running.get_inputs()
    values = running.run(None, {given.name: np.ones(given.shape, np.float32)})
    return [value.shape for value in values]
