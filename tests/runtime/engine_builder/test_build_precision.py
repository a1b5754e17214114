"""Proof of precision: what the bundle says is what the network that is built computes in."""

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from doubles.builds import FOR_TWO, QUIET
from doubles.pipelines import ExportedPipelines
from vditrack.bundle.folder import load_bundle, seal_bundle
from vditrack.bundle.manifest import Precision
from vditrack.engine_builder.library import import_library
from vditrack.engine_builder.network import parse_network
from vditrack.engine_builder.precision import MIN_PRODUCT_SHARE, measure_product_shares
from vditrack.engine_builder.run import build_bundle
from vditrack.errors import EngineError
from vditrack.inference.engine_identity import ENGINE_OF, load_identity
from vditrack.inference.trt_log import collecting_logger
from vditrack_export.families.layers import Attend
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.precision import lower_precision

pytestmark = pytest.mark.slow

PRODUCTS = ("MatMul", "Gemm", "Conv")
TYPES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


@pytest.mark.parametrize("claimed", ["fp16", "bf16"])
def test_low_precision_that_is_none_is_an_error(root: Path, claimed: Any) -> None:
    manifest = load_bundle(root).manifest
    precision = Precision(encoder="fp32", features=claimed)
    bundle = seal_bundle(root, msgspec.structs.replace(manifest, precision=precision))
    with pytest.raises(EngineError, match=f"says {claimed}, but .* products in 100.0% fp32"):
        build_bundle(bundle, FOR_TWO, QUIET)


def test_shares_are_of_multiply_adds(tmp_path: Path) -> None:
    def weight(name: str, *shape: int, dtype: Any = np.float32) -> TensorProto:
        return numpy_helper.from_array(np.zeros(shape, dtype), name)

    weights = [
        weight("kernel", 6, 2, 3, 3),
        weight("matrix", 8, 16, dtype=np.float16),
        weight("tall", 10, 4, dtype=np.float16),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["seen"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["rows"], ["low"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["low", "matrix"], ["product"]),
        helper.make_node("Transpose", ["low"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Squeeze", ["turned", "first"], ["square"]),
        helper.make_node("Gemm", ["square", "tall"], ["gram"], transA=0, transB=1),
    ]
    # Gemm of [8, 4] and [10, 4] transposed.
    weights.append(numpy_helper.from_array(np.array([0]), "first"))
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 5, 7]),
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, 4, 8]),
    ]
    outputs = [
        helper.make_tensor_value_info("seen", TensorProto.FLOAT, [1, 6, 5, 7]),
        helper.make_tensor_value_info("product", TensorProto.FLOAT16, [1, 4, 16]),
        helper.make_tensor_value_info("gram", TensorProto.FLOAT16, [8, 10]),
    ]
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "products.onnx")
    single, half = 6 * 5 * 7 * (4 // 2) * 9, 4 * 16 * 8 + 8 * 10 * 4
    shares = shares_of(tmp_path / "products.onnx")
    assert shares == pytest.approx(
        {"fp32": single / (single + half), "fp16": half / (single + half)}
    )


def test_attention_in_one_layer_counts_as_its_products(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend, self.project = Attend(), nn.Linear(16, 24, bias=False)
            lower_precision(self.project, "fp16")

        def forward(self, asking: Tensor, every: Tensor) -> Tensor:
            return self.project(self.attend(asking, every, every))

    examples = {"asking": torch.zeros(1, 5, 2, 8), "every": torch.zeros(1, 7, 2, 8)}
    graph = tmp_path / "half.onnx"
    export_graph(Half().eval(), examples, graph, outputs=["projected"])
    assert [node.op_type for node in onnx.load(graph).graph.node].count("MultiHeadAttention") == 1
    single, half = 2 * (5 * 7 * 16), 5 * 16 * 24
    assert shares_of(graph) == pytest.approx(
        {"fp32": single / (single + half), "fp16": half / (single + half)}
    )


def shares_of(graph: Path) -> dict[str, float]:
    trt = import_library("tensorrt-rtx")
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network, _parser = parse_network(trt, builder, logger, graph, "TensorRT-RTX")
    return measure_product_shares(trt, network)


def onnx_shares(graph: Path) -> dict[str, float]:
    """The same by ONNX's own inference of shapes and types."""
    model = onnx.shape_inference.infer_shapes(onnx.load(graph), data_prop=True)
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    tensors = {v.name: v.type.tensor_type for v in values}
    shapes = {n: [d.dim_value for d in t.shape.dim] for n, t in tensors.items()}
    shapes |= {w.name: list(w.dims) for w in model.graph.initializer}
    work: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            left, right = (shapes[name] for name in node.input[:2])
            summed = math.prod(right[1:]) if node.op_type == "Conv" else left[-1]
            kind = TYPES[tensors[node.output[0]].elem_type]
            work[kind] += math.prod(shapes[node.output[0]]) * summed
    return {kind: count / work.total() for kind, count in work.items()}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_small_wan_builds(
    exported_pipelines: ExportedPipelines, tmp_path: Path, precision: str
) -> None:
    exported = exported_pipelines.bundle("wan", precision)
    bundle = load_bundle(shutil.copytree(exported.root, tmp_path / "bundle"))
    folder, identity = build_bundle(bundle, FOR_TWO, QUIET)
    graphs = [graph for graph in ENGINE_OF if graph in bundle.manifest.files]
    assert set(identity.engines) == {ENGINE_OF[graph] for graph in graphs}
    assert load_identity(folder) == identity
    for graph in graphs:
        assert identity.precision[graph] == pytest.approx(onnx_shares(bundle.root / graph))
    assert identity.precision["features.onnx"][precision] >= MIN_PRODUCT_SHARE
    low = "fp16" if precision == "bf16" else precision
    assert identity.precision["encoder.onnx"][low] >= MIN_PRODUCT_SHARE
