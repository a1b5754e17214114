"""Precisions below FP32: what is rounded, what is not, and the gate that judges it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file, save_file
from torch import nn

from doubles.pipelines import (
    ExportedPipelines,
    card_text,
    moving_clip,
    run_export,
    save_pipeline,
)
from vditrack import Tracker, VditrackError
from vditrack.bundle.folder import load_bundle
from vditrack.bundle.manifest import Input, Precision
from vditrack.evaluation.protocols import TapVid
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack.points.tracks import Tracks
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.clips import render_clip
from vditrack_export.families.encoder_form import Graph
from vditrack_export.families.layers import Attend
from vditrack_export.pipeline.acceptance import ScoredTracks, compare_tracks
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.precision import (
    EncoderPrecisionName,
    PrecisionName,
    choose_precision,
    lower_precision,
)
from vditrack_export.pipeline.ranges import measure_ranges
from vditrack_export.pipeline.sessions import TorchSession

pytestmark = pytest.mark.slow

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
LOW = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


def spacing(precision: str) -> float:
    """Relative distance of neighbouring numbers."""
    return torch.finfo(DTYPES[precision]).eps


@pytest.mark.parametrize(
    ("precision", "own", "encoder"),
    [
        ("fp32", None, "fp32"),
        ("fp16", None, "fp16"),
        ("bf16", None, "fp16"),
        ("fp32", "fp16", "fp16"),
        ("bf16", "fp32", "fp32"),
    ],
)
def test_one_option_lowers_both_networks(
    precision: PrecisionName, own: EncoderPrecisionName | None, encoder: EncoderPrecisionName
) -> None:
    assert choose_precision(precision, own) == Precision(encoder=encoder, features=precision)


@pytest.mark.parametrize("precision", DTYPES)
def test_products_are_of_rounded_numbers(precision: str) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(40, 30), torch.randn(5, 40)
    # The product in float64 of what is left of the numbers after rounding.
    rounded = [v.to(DTYPES[precision]).double() for v in (x, layer.weight, layer.bias)]
    expected = rounded[0] @ rounded[1].T + rounded[2]
    lower_precision(layer, precision)
    found = layer(x)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= spacing(precision) * expected.abs().max()
    assert layer.weight.dtype == DTYPES[precision]


@pytest.mark.parametrize("precision", DTYPES)
def test_what_is_not_a_product_is_left_alone(precision: str) -> None:
    torch.manual_seed(0)
    norm, x = nn.LayerNorm(16), torch.randn(3, 16)
    expected = norm(x)
    lower_precision(norm, precision)
    assert torch.equal(norm(x), expected)


@pytest.mark.parametrize("precision", DTYPES)
def test_attention_is_that_of_rounded_numbers(precision: str) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 9, 2, 8) for _ in range(3))
    added = torch.randn(9)
    expected = Attend()(query.double(), key.double(), value.double(), added.double())
    attend = Attend()
    lower_precision(attend, precision)
    found = attend(query, key, value, added)
    assert found.dtype == torch.float32
    error = (found - expected).abs().max()
    assert 0 < error <= 4 * spacing(precision) * value.abs().max()


def test_the_softmax_is_of_fp32() -> None:
    attend = Attend()
    lower_precision(attend, "bf16")
    nothing, value = torch.zeros(1, 2, 1, 2), torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    # In BF16 these two would be equal.
    found = attend(nothing[:, :1], nothing, value, torch.tensor([-100_000.0, -99_900.0]))
    assert found.item() == 1.0


@pytest.mark.parametrize(
    ("family", "precision"),
    [("wan", "fp16"), ("wan", "bf16"), ("cogvideox", "fp16")],
)
def test_only_products_are_rounded_in_the_graphs(
    exported_pipelines: ExportedPipelines, family: str, precision: str
) -> None:
    bundle = exported_pipelines.bundle(family, precision)
    assert bundle.manifest.precision == Precision(encoder="fp16", features=precision)
    for graph, wanted in (
        (bundle.encoder, bundle.manifest.precision.encoder),
        (bundle.features, precision),
    ):
        model = onnx.shape_inference.infer_shapes(onnx.load(graph), data_prop=True)
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
        low = Counter(
            node.op_type for node in model.graph.node if types.get(node.output[0]) in LOW.values()
        )
        # Beside the products, their bias and what only moves numbers or lays them out.
        products = {"MatMul", "Gemm", "Conv"}
        moving = {"Cast", "Add", "Transpose", "Reshape", "Concat", "Slice", "Pad", "Identity"}
        assert low.keys() <= products | moving, low
        # The first layer of a transformer in BF16.
        left = 1 if wanted == "bf16" else 0
        if wanted != "fp32":
            every = sum(node.op_type in products for node in model.graph.node)
            assert sum(low[kind] for kind in products) >= every - left > 0
        weights = {w.data_type for w in model.graph.initializer if np.prod(w.dims) > 500}
        assert (LOW.get(wanted) in weights) == (wanted != "fp32")


@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_a_bundle_in_fp16_tracks_as_the_one_in_fp32(
    exported_pipelines: ExportedPipelines, family: str
) -> None:
    full, half = (exported_pipelines.bundle(family, precision) for precision in ("fp32", "fp16"))
    gate = half.manifest.precision_check
    assert gate is not None
    assert (gate.frames, gate.height, gate.width) == (16, 64, 96)
    assert full.manifest.precision_check is None
    sizes = [sum(r.size for r in b.manifest.files.values()) for b in (full, half)]
    assert sizes[1] < sizes[0]
    clip, queries = moving_clip(7), [[0, 40, 30], [3, 60, 40], [0, 70, 20], [0, 20, 50]]
    first, second = (Tracker(bundle).track(clip, queries) for bundle in (full, half))
    assert np.median(np.linalg.norm(first.points - second.points, axis=2)) < 0.5
    sessions = [OnnxRuntimeSession(bundle.features) for bundle in (full, half)]
    shape = sessions[0].inputs["latents"].shape
    latents = np.random.default_rng(0).standard_normal(shape, np.float32)
    a, b = (session.run({"latents": latents})["descriptors"] for session in sessions)
    assert 1e-6 < np.abs(a - b).max() / np.abs(a).max() < 1e-2


@pytest.mark.parametrize("precision", DTYPES)
def test_the_written_graph_is_what_the_gate_ran(tmp_path: Path, precision: str) -> None:
    torch.manual_seed(0)

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.project, self.attend = nn.LayerNorm(16), nn.Linear(16, 16), Attend()

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            x = self.project(self.norm(latents)).unflatten(-1, (2, 8))
            return latents + self.attend(x, x, x)

    module, latents = Small().eval(), torch.randn(1, 6, 16)
    lower_precision(module, precision)
    graph = Graph("small.onnx", module, {"latents": latents}, ("descriptors",))
    session = TorchSession(graph)
    expected = session.run({"latents": latents.numpy()})["descriptors"]
    assert session.outputs["descriptors"].shape == (1, 6, 16)
    export_graph(module, graph.examples, tmp_path / graph.file, outputs=graph.outputs)
    # ONNX Runtime has no BF16 on the CPU; the reference implementation of ONNX has.
    (found,) = ReferenceEvaluator(str(tmp_path / graph.file)).run(
        None, {"latents": latents.numpy()}
    )
    assert np.abs(found - expected).max() <= 4 * spacing(precision) * np.abs(expected).max()


def save_scaled_pipeline(folder: Path, factors: dict[str, float]) -> Path:
    """Save a small Wan checkpoint with some of the transformer's weights multiplied."""
    save_pipeline(folder, "wan")
    for shard in (folder / "transformer").glob("*.safetensors"):
        weights = load_file(shard)
        for name, factor in factors.items():
            if name in weights:
                weights[name] *= factor
        save_file(weights, shard, {"format": "pt"})
    return folder


def test_numbers_beyond_fp16_are_scaled(tmp_path: Path) -> None:
    # The network between the two layers is then far above 65,504, and FP32 does not mind.
    factors = {"blocks.0.ffn.net.0.proj.weight": 1e6, "blocks.0.ffn.net.2.weight": 1e-6}
    folder, card = save_scaled_pipeline(tmp_path / "wan", factors), tmp_path / "small.toml"
    card.write_text(card_text("wan"))
    done = run_export(card, "--weights", folder, "-o", tmp_path / "b", "--precision", "fp16")
    assert done.exception is None, done.exception
    errors = load_bundle(tmp_path / "b").manifest.lowered_parity
    assert [(each.network, each.precision) for each in errors] == [
        ("encoder", "fp16"),
        ("transformer", "fp16"),
    ]
    assert all(1e-6 < each.error <= each.limit < 0.01 for each in errors)


def test_numbers_that_no_scale_mends_are_refused(tmp_path: Path) -> None:
    factors = {"blocks.0.attn1.norm_q.weight": 1e8, "blocks.0.attn1.norm_k.weight": 1e-8}
    folder, card = save_scaled_pipeline(tmp_path / "wan", factors), tmp_path / "small.toml"
    card.write_text(card_text("wan"))
    before = sorted(tmp_path.iterdir())
    done = run_export(
        card, "--weights", folder, "-o", tmp_path / "b", "--precision", "fp16", "--accept"
    )
    assert isinstance(done.exception, VditrackError)
    assert "descriptors of features.onnx are not finite" in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("convolution", [nn.Conv2d, nn.Conv3d, nn.Linear])
@pytest.mark.parametrize("factors", [(1e6, 1.0), (1.0, 1e6), (1e-7, 1.0), (1.0, 1e-7), (1e5, 1e5)])
def test_layers_beyond_fp16_keep_its_accuracy(
    convolution: type[nn.Module], factors: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    linear = convolution is nn.Linear
    layer = nn.Linear(8, 6) if linear else convolution(8, 6, 3)
    shape = (5, 8) if linear else (1, 8, 5, 5, 5)[: 4 + (convolution is nn.Conv3d)]
    x, graph = torch.randn(shape) * factors[0], nn.Sequential(layer)
    with torch.no_grad():
        layer.weight *= factors[1]
        layer.bias *= factors[0] * factors[1]
        expected = graph(x)
    lower_precision(graph, "fp16", measure_ranges(graph, lambda: graph(x)))
    assert layer.weight.dtype == torch.float16
    error = (graph(x) - expected).abs().max() / expected.abs().max()
    assert 0 < error <= 2 * spacing("fp16")


SIZE = Input(height=64, width=96, frames=5, temporal_stride=1, described_frames=5)


def perfect() -> ScoredTracks:
    clip = render_clip(3, 64, 96, 5, points=40)
    return ScoredTracks(SIZE, clip.points, clip.visible, clip.points, clip.visible)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda t: t, False),
        (lambda t: replace(t, found=t.found + np.float32(0.05)), False),
        (lambda t: replace(t, found=t.found + np.float32(0.4)), True),
        (lambda t: replace(t, visible=t.visible & (np.arange(40) > 3)[:, None]), True),
        (lambda t: replace(t, found=np.full_like(t.found, np.nan)), True),
        (lambda t: replace(t, visible=np.zeros_like(t.visible)), True),
    ],
)
def test_the_gate(change: Callable[[ScoredTracks], ScoredTracks], refused: bool) -> None:
    before = perfect()
    after = change(before)
    if refused:
        with pytest.raises(VditrackError, match="this precision moves the median point by"):
            compare_tracks(before, after, accept=False)
    else:
        assert compare_tracks(before, after, accept=False).accepted is False
    assert compare_tracks(before, after, accept=True).accepted is refused


def test_the_gates_jaccard_is_tap_vids() -> None:
    clip = render_clip(5, 64, 96, 9, points=40)
    rng = np.random.default_rng(0)
    found = (clip.points + rng.normal(0, 3, clip.points.shape)).astype(np.float32)
    visible = clip.visible ^ (rng.random(clip.visible.shape) < 0.1)

    class Fixed:
        def track(self, _frames: np.ndarray, queries: np.ndarray) -> Tracks:
            filler = np.ones(visible.shape, np.float32)
            return Tracks(queries, found, visible, filler, filler)

    annotated = AnnotatedClip("clip", clip.frames, clip.points, clip.visible)
    official = TapVid(size="full").run(annotated, "fixed", Fixed())
    tracks = ScoredTracks(SIZE, found, visible, clip.points, clip.visible)
    assert tracks.average_jaccard() == pytest.approx(official.metrics["AJ"])
