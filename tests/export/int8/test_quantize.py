"""Quantised copies of bundles: what is in them, what they cost in accuracy, what is refused."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from doubles.passthrough import write_passthrough
from vditrack.bundle.folder import INT8_GRAPHS, load_bundle, seal_bundle
from vditrack.bundle.manifest import Precision
from vditrack.inference.onnxruntime import open_session
from vditrack.synthetic.layers.clips import render_clip
from vditrack_export.int8 import calibration, quantize

CHANNELS = 24


@pytest.fixture
def int8_cpu(monkeypatch):
    """A CPU with INT8 dot products, and two clips for calibration."""
    monkeypatch.setattr(quantize, "find_int8_instructions", lambda: "AVX512-VNNI")
    monkeypatch.setattr(calibration, "SEEDS", range(1000, 1001))


def write_convolving(folder):
    """A bundle whose encoder is a convolution, and whose transformer is a matrix product."""
    bundle, count = write_passthrough(folder, rows=8, columns=12), CHANNELS
    weights = np.float32(np.random.default_rng(0).normal(size=(count, 3, 8, 8)) / 64)
    weights -= weights.mean(axis=(1, 2, 3), keepdims=True)
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["cells"], strides=[8, 8]),
        helper.make_node("Unsqueeze", ["cells", "two"], ["latents"]),
    ]
    encoder = helper.make_graph(
        nodes,
        "encoder",
        [value("frames", TensorProto.UINT8, [1, 64, 96, 3])],
        [value("latents", TensorProto.FLOAT, [1, count, 1, 8, 12])],
        [numpy_helper.from_array(weights, "weights"), from_list([2], "two")],
    )
    save(bundle.encoder, encoder)
    nodes = [
        helper.make_node("Transpose", ["latents"], ["channels_last"], perm=[0, 2, 3, 4, 1]),
        helper.make_node("Reshape", ["channels_last", "shape"], ["cells"]),
        helper.make_node("MatMul", ["cells", "mixing"], ["descriptors"]),
    ]
    features = helper.make_graph(
        nodes,
        "features",
        [value("latents", TensorProto.FLOAT, [1, count, 4, 8, 12])],
        [value("descriptors", TensorProto.FLOAT, [4, 8, 12, count])],
        [
            numpy_helper.from_array(np.eye(count, dtype=np.float32), "mixing"),
            from_list([4, 8, 12, count], "shape"),
        ],
    )
    save(bundle.features, features)
    manifest = bundle.manifest
    changed = msgspec.structs.replace(
        manifest,
        output=msgspec.structs.replace(manifest.output, channels=count),
        source=msgspec.structs.replace(manifest.source, channels=tuple(range(count))),
    )
    return seal_bundle(bundle.root, changed)


def from_list(values, name):
    return numpy_helper.from_array(np.array(values), name)


def save(path, graph):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def test_a_bundle_gets_int8_graphs(tmp_path, int8_cpu, run_vditrack):
    bundle = write_convolving(tmp_path / "bundle")
    done = run_vditrack("quantize", bundle.root, "-o", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert "the median point moves by" in done.stdout
    made = load_bundle(tmp_path / "new")
    assert made.manifest.int8.median_move < 0.5
    assert set(made.manifest.files) == {*bundle.manifest.files, *INT8_GRAPHS.values()}
    encoder = made.root / INT8_GRAPHS["encoder.onnx"]
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(encoder)
    assert "MatMulInteger" in operators(made.root / INT8_GRAPHS["features.onnx"])
    frames = render_clip(5, 64, 96, 1).frames
    exact = open_session(made.encoder).run({"frames": frames})["latents"]
    rounded = open_session(encoder).run({"frames": frames})["latents"]
    assert 0 < np.linalg.norm(rounded - exact) < 0.05 * np.linalg.norm(exact)
    # Its own folder may be the destination, and the older graphs are replaced.
    again = run_vditrack("quantize", made.root, "-o", made.root, "--json")
    assert again.returncode == 0, again.stderr
    assert load_bundle(made.root).manifest.files == made.manifest.files


def test_what_cannot_be_quantised_is_refused(tmp_path, int8_cpu, assert_refused):
    cached = write_passthrough(tmp_path / "cached", frames=5, cached=True, temporal_stride=4)
    refuse(assert_refused, cached, "pass caches from run to run", tmp_path)
    bundle = write_passthrough(tmp_path / "bundle")
    half = change(bundle, precision=Precision(encoder="fp16", features="fp32"))
    refuse(assert_refused, half, "its graphs are not in FP32", tmp_path)
    source = msgspec.structs.replace(bundle.manifest.source, random_weights=True)
    refuse(assert_refused, change(bundle, source=source), "its weights are random", tmp_path)


def test_a_cpu_without_the_instructions_is_refused(tmp_path, monkeypatch, assert_refused):
    monkeypatch.setattr(quantize, "find_int8_instructions", lambda: None)
    bundle = write_passthrough(tmp_path / "bundle")
    refuse(assert_refused, bundle, "not known to have INT8 dot products", tmp_path)


def change(bundle, **fields):
    return seal_bundle(bundle.root, msgspec.structs.replace(bundle.manifest, **fields))


def refuse(assert_refused, bundle, message, folder):
    assert_refused("quantize", bundle.root, "-o", "new", message=message, cwd=folder)


def test_the_bundled_model_has_int8_graphs(tiny_bundle):
    check = tiny_bundle.manifest.int8
    assert check is not None
    assert check.average_jaccard > check.average_jaccard_fp32 - 0.3


def test_the_bundled_encoder_does_not_round_latents(tiny_bundle):
    graph = onnx.load(tiny_bundle.root / INT8_GRAPHS["encoder.onnx"]).graph
    source = {output: node for node in graph.node for output in node.output}
    node = source["latents"]
    while node.op_type != "Conv":
        assert node.op_type != "DequantizeLinear"
        node = source[node.input[0]]
