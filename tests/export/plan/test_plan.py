"""What `vditrack plan` counts, against torch's own counter, real runs, and work by hand."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
import typer
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import UMT5Config, UMT5EncoderModel
from typer.testing import CliRunner

from vditrack.bundle.configuration import FlowTracking, Recovery, Visibility
from vditrack.bundle.folder import bundled_model
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.features import extractor as features
from vditrack.features.feature_map import FeatureMap
from vditrack.points import descriptor_matching as matching
from vditrack.points import forward_backward as consistency
from vditrack.points.match_tracker import MatchTracker
from vditrack_export.card import load_card
from vditrack_export.families.image_input import FramesToLatents
from vditrack_export.families.read_spec import Cut, Denoising
from vditrack_export.families.text_encoders import Umt5
from vditrack_export.families.tiny.autoencoder import TinyEncoder
from vditrack_export.families.tiny.shapes import Convolutions
from vditrack_export.families.wan.shapes import WanAutoencoder, WanTransformer
from vditrack_export.families.wan.transformer import WanKeys
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.plan.candidates import candidate_runs, holds
from vditrack_export.plan.cli import plan
from vditrack_export.plan.convolutions import convolutional_encoder
from vditrack_export.plan.devices import all_devices, find_device
from vditrack_export.plan.layers import Reading
from vditrack_export.plan.matching import matching_cost
from vditrack_export.plan.memory import Step, Tensor, live_peak, planned_peak
from vditrack_export.plan.pipeline import Setting, reference_costs, tracking_costs
from vditrack_export.plan.roofline import roofline
from vditrack_export.plan.runs import Question, plan_run
from vditrack_export.plan.t5 import text_encoder
from vditrack_export.plan.trace import Fusion, Trace
from vditrack_export.plan.wan import truncated_path, whole_transformer
from vditrack_export.plan.wan_vae import wan_decoder, wan_encoder
from vditrack_export.tiny.model import build_transformer

WAN = load_card("wan2.1-t2v-1.3b")
SMALL = WanTransformer(
    layers=4,
    heads=3,
    head_dim=32,
    feed_forward=112,
    in_channels=8,
    out_channels=6,
    patch=(1, 2, 2),
    frequency_dim=32,
    text_dim=16,
    text_tokens=5,
)
SMALL_AUTOENCODER = WanAutoencoder(
    image_channels=3,
    base_width=8,
    multiples=(1, 2, 4, 4),
    residual_blocks=1,
    temporal_downsample=(False, True, True),
    latent_channels=4,
)


def counted(run: Callable[[], object]) -> int:
    """Operations of a torch program; the CPU's own attention kernel is not in torch's table."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return counter.get_total_flops()


def weights_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def transformer(shape: WanTransformer) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=shape.patch,
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head_dim,
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        text_dim=shape.text_dim,
        freq_dim=shape.frequency_dim,
        ffn_dim=shape.feed_forward,
        num_layers=shape.layers,
    ).eval()


def autoencoder(shape: WanAutoencoder) -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=shape.base_width,
        z_dim=shape.latent_channels,
        dim_mult=list(shape.multiples),
        num_res_blocks=shape.residual_blocks,
        temperal_downsample=list(shape.temporal_downsample),
        latents_mean=[0.0] * shape.latent_channels,
        latents_std=[1.0] * shape.latent_channels,
    ).eval()


def small_keys(shape: WanTransformer, latents: tuple[int, int, int], **changes: object) -> WanKeys:
    settings = {"block": 2, "described": latents[0]} | changes
    # An empty prompt: one token, and padding with zeros.
    prompt = torch.zeros(shape.text_tokens, shape.text_dim)
    prompt[0] = 1
    return WanKeys(
        transformer(shape),
        (shape.in_channels, *latents),
        Cut(heads=(0,), channels=tuple(range(10)), **settings),
        Denoising(timestep=50.0, signal=0.95, noise=0.05, seed=0),
        prompt,
    ).eval()


# Operations and weights


@pytest.mark.parametrize("latents", [(3, 8, 12), (1, 4, 6)])
def test_whole_transformer(latents):
    model = transformer(SMALL)
    inputs = torch.zeros(1, 8, *latents), torch.tensor([5.0]), torch.zeros(1, 5, 16)
    for fusion in get_args(Fusion):
        cost = whole_transformer(SMALL, latents, fusion=fusion)
        assert cost.operations == counted(lambda: model(*inputs))
        assert cost.weights == weights_of(model)


@pytest.mark.parametrize("text_tokens", [1, 2, 5])
@pytest.mark.parametrize("tensor", ["keys", "queries", "hidden"])
@pytest.mark.parametrize(("block", "described"), [(0, 3), (1, 1), (2, 3), (3, 2)])
def test_truncated_path(text_tokens, tensor, block, described):
    latents = (3, 8, 12)
    shape = msgspec.structs.replace(SMALL, text_tokens=text_tokens)
    cut = {"block": block, "described": described, "tensor": tensor}
    module = small_keys(shape, latents, **cut)
    cost = truncated_path(shape, latents, Reading(heads=1, channels=10, **cut), fusion="all")
    assert cost.operations == counted(lambda: module(torch.zeros(1, 8, *latents)))
    held = weights_of(module) + sum(buffer.numel() for buffer in module.buffers())
    # Not counted: what the chosen block has of the rotary tables, and its channels' numbers.
    held -= sum(buffer.numel() for buffer in module.reading.buffers())
    if text_tokens == 1:
        # The norm before a constant is in the module, but not in its graph.
        held -= len(module.blocks) * 2 * shape.width
    assert cost.weights == held


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_autoencoder_with_temporal_compression(frames):
    model, latents = autoencoder(SMALL_AUTOENCODER), 1 + (frames - 1) // 4
    encoder = wan_encoder(SMALL_AUTOENCODER, (frames, 32, 48), compressed=True, fusion="all")
    decoder = wan_decoder(SMALL_AUTOENCODER, (latents, 4, 6), compressed=True, fusion="all")
    assert encoder.operations == counted(lambda: model.encode(torch.zeros(1, 3, frames, 32, 48)))
    assert decoder.operations == counted(lambda: model.decode(torch.zeros(1, 4, latents, 4, 6)))
    if frames > 1:
        assert encoder.weights + decoder.weights == weights_of(model)


@pytest.mark.parametrize("frames", [1, 5, 7])
def test_autoencoder_frame_by_frame(frames):
    """Without a cache diffusers' modules skip what is strided in time: one latent a frame."""
    model, clip = autoencoder(SMALL_AUTOENCODER), torch.zeros(1, 3, frames, 32, 48)
    with torch.no_grad():
        latents = model.encoder(clip)
    assert latents.shape[2] == frames
    encoder = wan_encoder(SMALL_AUTOENCODER, (frames, 32, 48), compressed=False, fusion="all")
    decoder = wan_decoder(SMALL_AUTOENCODER, (frames, 4, 6), compressed=False, fusion="all")
    assert encoder.operations == counted(lambda: model.quant_conv(model.encoder(clip)))
    small = torch.zeros(1, 4, frames, 4, 6)
    assert decoder.operations == counted(lambda: model.decoder(model.post_quant_conv(small)))


def test_text_encoder():
    shape = Umt5(layers=2, width=24, heads=3, head_dim=8, feed_forward=40, vocabulary=50)
    model = UMT5EncoderModel(
        UMT5Config(num_layers=2, d_model=24, num_heads=3, d_kv=8, d_ff=40, vocab_size=50)
    ).eval()
    cost = text_encoder(shape, 16, fusion="all")
    tokens = torch.zeros(1, 16, dtype=torch.long)
    assert cost.operations == counted(lambda: model(tokens, attention_mask=torch.ones_like(tokens)))
    assert cost.weights == weights_of(model)


def test_convolutional_encoder():
    model = TinyEncoder().eval()
    shape = load_card("tiny").encoder
    cost = convolutional_encoder(shape, (3, 48, 64), fusion="all")
    assert cost.operations == counted(lambda: model(torch.zeros(3, 3, 48, 64)))
    assert cost.weights == weights_of(model)


@pytest.mark.parametrize(("compressed", "latents"), [(True, 7), (False, 25)])
def test_wan_at_full_size(compressed, latents):
    """On the meta device: the checkpoint's own sizes, HeFT's window, no memory."""
    costs = reference_costs(WAN, Setting(480, 832, 25, 4 if compressed else 1), fusion="all")
    with torch.device("meta"):
        model, vae = transformer(WAN.transformer), AutoencoderKLWan().eval()
        noised, step = torch.empty(1, 16, latents, 60, 104), torch.tensor([60.0])
        clip, prompt = torch.empty(1, 3, 25, 480, 832), torch.empty(1, 512, 4096)
    assert costs["transformer"].operations == 2 * counted(lambda: model(noised, step, prompt))
    if compressed:
        assert costs["encoder"].operations == counted(lambda: vae._encode(clip))
        assert costs["decoder"].operations == counted(lambda: vae._decode(noised))
    else:
        encoded = counted(lambda: vae.quant_conv(vae.encoder(clip)))
        assert costs["encoder"].operations == encoded
        decoded = counted(lambda: vae.decoder(vae.post_quant_conv(noised)))
        assert costs["decoder"].operations == decoded


def test_text_encoder_at_full_size():
    shape = WAN.text_encoder
    assert shape is not None
    config = UMT5Config(
        num_layers=24, d_model=4096, d_kv=64, d_ff=10240, num_heads=64, vocab_size=256384
    )
    with torch.device("meta"):
        model, tokens = UMT5EncoderModel(config).eval(), torch.empty(1, 512, dtype=torch.long)
    cost = text_encoder(shape, 512, fusion="all")
    assert cost.operations == counted(lambda: model(tokens))
    assert cost.weights == weights_of(model)


def test_the_cards_shapes_are_the_models():
    """The defaults of diffusers' autoencoder are Wan's; tiny's shapes are those of its recipe."""
    tiny, recipe = load_card("tiny"), build_transformer()
    assert (
        transformer(tiny.transformer).config.items()
        >= {
            name: recipe.config[name]
            for name in (
                "num_layers",
                "num_attention_heads",
                "attention_head_dim",
                "ffn_dim",
                "in_channels",
                "out_channels",
                "text_dim",
                "freq_dim",
                "patch_size",
            )
        }.items()
    )
    assert isinstance(tiny.encoder, Convolutions)
    assert TinyEncoder().shape == {
        "latents": tiny.encoder.latent_channels,
        "widths": list(tiny.encoder.widths),
    }
    wan = WAN.encoder
    assert isinstance(wan, WanAutoencoder)
    config = autoencoder(wan).config
    with torch.device("meta"):
        default = AutoencoderKLWan().config
    for name in ("base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample"):
        assert config[name] == default[name]


def test_the_last_step_is_the_schedulers():
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(50)
    assert float(scheduler.timesteps[49]) == WAN.feature.timestep
    assert float(scheduler.sigmas[49]) == pytest.approx(WAN.feature.noise_level, abs=5e-5)


@pytest.mark.parametrize(
    ("setting", "reference", "truncated"),
    [
        (Setting(480, 832, 25, 1), 763, 227),
        (Setting(480, 832, 25, 4), 101, 30),
        (Setting(256, 448, 25, 4), 20, 6),
    ],
)
def test_hefts_figures(setting, reference, truncated):
    """By hand: 86.5 MFLOP a token and 4 N^2 1536 in attention, 18 or 2 x 30 blocks.

    Of the 86.5, 3.1 attend to 512 tokens of the prompt; two of them are kept.
    """
    costs = tracking_costs(
        WAN,
        setting,
        described=setting.latent_frames,
        new_frames=24,
        points=64,
        fusion="all",
    )
    whole = reference_costs(WAN, setting, fusion="all")["transformer"]
    assert whole.operations / 1e12 == pytest.approx(reference, abs=0.6)
    assert costs["transformer"].operations / 1e12 == pytest.approx(truncated, abs=0.6)
    tokens = setting.latent_frames * setting.height * setting.width // 256
    by_hand = (86.5e6 - 4 * 510 * 1536) * tokens + 4 * tokens**2 * 1536
    assert costs["transformer"].operations == pytest.approx(18 * by_hand, rel=0.01)


class Counted(np.ndarray):
    """An array whose products of matrices are counted."""

    operations = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [_plain(value) for value in inputs]
        if out is not None:
            options["out"] = tuple(_plain(value) for value in out)
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Counted.operations += 2 * result.size * plain[0].shape[-1]
        return _counted(result)


def _plain(value):
    return value.view(np.ndarray) if isinstance(value, Counted) else value


def _counted(value):
    return value.view(Counted) if type(value) is np.ndarray else value


def counted_einsum(letters: str, *operands: np.ndarray) -> np.ndarray:
    names = letters.partition("->")[0].split(",")
    sides = {
        letter: side
        for name, operand in zip(names, operands, strict=True)
        for letter, side in zip(name, operand.shape, strict=True)
    }
    Counted.operations += 2 * int(np.prod(list(sides.values())))
    return _counted(np.einsum(letters, *map(_plain, operands)))


@pytest.mark.parametrize("points", [8, 64])
def test_matching(monkeypatch, points):
    """NumPy's own products, counted while the tracker takes one more frame."""
    grid, channels, horizon = Grid(20, 30, 16), 40, 3
    settings = msgspec.structs.replace(WAN.matching, horizon=horizon)
    names = {name: getattr(np, name) for name in dir(np)}
    counting = SimpleNamespace(
        **names
        | {
            "asarray": np.asanyarray,
            "einsum": counted_einsum,
            "where": lambda *given: _counted(np.where(*given)),
        }
    )
    for module in (features, matching, consistency):
        monkeypatch.setattr(module, "np", counting)
    monkeypatch.setattr(features, "_STENCIL_WEIGHTS", features._STENCIL_WEIGHTS.view(Counted))
    random = np.random.default_rng(0)
    descriptors = random.normal(size=(20, 30, channels)).astype(np.float32)
    picture = np.zeros((grid.height, grid.width, 3), np.uint8)
    alive = MatchTracker(grid, settings)
    for frame in range(horizon + 3):
        Counted.operations = 0
        alive.advance(FeatureMap(grid, descriptors.view(Counted)), picture)
        if frame == 0:
            places = random.uniform(0.2, 0.8, (points, 2)) * [grid.width, grid.height]
            alive.add(np.arange(points), places.astype(np.float32))
    assert alive.visible.all()
    cost = matching_cost(grid, channels, points, settings)
    assert cost.operations == pytest.approx(Counted.operations, rel=0.02)


def test_points_that_are_held_cost_a_look_at_their_places():
    """Of features nothing more is read while flow holds the points: no match, no way back."""
    grid = Grid(20, 30, 16)
    weights = Visibility(
        bias=0.0, correlation=1.0, first_similarity=1.0, template_similarity=1.0, distance=0.0
    )
    flow_tracking = FlowTracking(
        recovery=Recovery(min_similarity=0.5, min_correlation=0.5), visibility=weights
    )
    settings = msgspec.structs.replace(WAN.matching, flow_tracking=flow_tracking)
    held, matched = (matching_cost(grid, 40, 64, each) for each in (settings, WAN.matching))
    assert held.operations < 0.05 * matched.operations and held.peak < matched.peak
    assert held.operations == 2 * matching_cost(grid, 40, 32, settings).operations


# Memory and time


def test_memory_by_hand():
    """From x to a to b, c in the place of b, and d from c and the a that was kept for it."""
    x, a, b, c, d = (Tensor((size,)) for size in (10, 20, 30, 30, 40))
    steps = [Step((x,), a), Step((a,), b), Step((b,), c, in_place=True), Step((c, a), d)]
    assert live_peak(steps, [d]) == planned_peak(steps, [d]) == 20 + 30 + 40
    apart = [*steps[:2], Step((b,), c), steps[3]]
    assert live_peak(apart, [d]) == 90
    assert live_peak(apart[:3], [a, c]) == 20 + 30 + 30


def test_a_planned_buffer_is_held_where_it_is_idle():
    """As attention's scores are, through the feed-forward network, for those of the next block."""
    x, scores, tokens, inner, again, more = (Tensor((n,)) for n in (2, 100, 2, 60, 2, 100))
    steps = [
        Step((x,), scores),
        Step((scores,), tokens),
        Step((tokens,), inner),
        Step((inner,), again),
        Step((again,), more),
    ]
    assert live_peak(steps, [more]) == 102
    assert planned_peak(steps, [more]) == 100 + 60 + 2


def test_attention_fused_or_not():
    """Tokens x tokens a head is kept only where attention is two products around a softmax."""
    one, scores = 50 * 32, 4 * 50 * 50
    for fusion, node, peak, moved in [
        ("all", False, 4 * one, 4 * one),
        # The kernel's own copies of queries, keys and values are there as well.
        ("attention", True, 7 * one, 4 * one),
        ("attention", False, 3 * one + scores, 4 * one + 2 * scores),
        ("none", True, 3 * one + scores, 4 * one + 2 * scores),
    ]:
        trace = Trace(fusion)
        query, key, value = (Tensor((1, 50, 32)) for _ in range(3))
        cost = trace.cost(trace.attend(query, key, value, heads=4, node=node))
        assert cost.operations == 2 * 2 * 50 * 50 * 32
        assert (cost.peak, cost.moved) == (peak, moved)


PEAK = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
from vditrack.inference import onnxruntime as backend

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

path, runs, arena = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "arena"
usual = backend._options
def options(onnxruntime):
    chosen = usual(onnxruntime)
    chosen.enable_cpu_mem_arena = arena
    return chosen
backend._options = options
before = resident("VmRSS")
session = backend.OnnxRuntimeSession(path)
Path("/proc/self/clear_refs").write_text("5")
((name, tensor),) = session.inputs.items()
for _ in range(runs):
    session.run({name: np.ones(tensor.shape, tensor.dtype)})
print(resident("VmHWM") - before)
"""


def peak_bytes(path: Path, runs: int, memory: str) -> int:
    """Of a process that loads and runs a graph; what it was before is taken off."""
    # Freed memory goes back at once, so that none of it is counted twice.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "200000"}
    command = [sys.executable, "-c", PEAK, str(path), str(runs), memory]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def exported_transformer(path: Path):
    shape = msgspec.structs.replace(
        SMALL, heads=4, head_dim=64, feed_forward=1024, patch=(1, 1, 1), text_tokens=1, layers=4
    )
    latents = (8, 32, 32)
    keys = small_keys(shape, latents, block=3, described=1)
    example = torch.zeros(1, shape.in_channels, *latents)
    export_graph(keys, {"latents": example}, path, outputs=["descriptors"])
    return truncated_path(shape, latents, Reading(3, 1, 10, described=1), fusion="attention")


def exported_prompted_transformer(path: Path):
    """As many heads and as wide a feed-forward network that attention does not stand alone."""
    shape = msgspec.structs.replace(
        SMALL, heads=8, head_dim=64, feed_forward=2048, patch=(1, 1, 1), text_tokens=64
    )
    latents = (5, 32, 32)
    keys = small_keys(shape, latents)
    example = torch.zeros(1, shape.in_channels, *latents)
    export_graph(keys, {"latents": example}, path, outputs=["descriptors"])
    return truncated_path(shape, latents, Reading(2, 1, 10, described=5), fusion="attention")


def exported_encoder(path: Path):
    frames = torch.zeros(8, 480, 640, 3, dtype=torch.uint8)
    module = FramesToLatents(TinyEncoder()).eval()
    export_graph(module, {"frames": frames}, path, outputs=["latents"])
    shape = load_card("tiny").encoder
    return convolutional_encoder(shape, tuple(frames.shape[:3]), fusion="attention")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "exported", [exported_transformer, exported_prompted_transformer, exported_encoder]
)
def test_memory_that_onnx_runtime_takes(tmp_path, exported):
    path = tmp_path / "graph.onnx"
    cost = exported(path)
    assert cost.peak * 4 > 150e6
    needed = peak_bytes(path, runs=1, memory="no arena")
    assert 4 * (cost.weights + cost.peak) == pytest.approx(needed, rel=0.25)
    # As the project runs it, for good: what the device table says that the engine holds.
    held = peak_bytes(path, runs=3, memory="arena")
    expected = 4 * (cost.weights + find_device("cpu-2-core").held * cost.peak)
    assert expected == pytest.approx(held, rel=0.25)


def question(device: str = "orin-agx", **changes: object) -> Question:
    target = find_device(device)
    asked = {"precision": target.default, "efficiency": 0.5, "points": 64, "rate": 30.0}
    return Question(device=target, **asked | changes)


def test_roofline():
    line = roofline(find_device("orin-agx"), "bf16", 0.5)
    assert line.seconds(21_300_000_000_000, 0) == pytest.approx(1)
    assert line.seconds(0, 102_400_000_000) == pytest.approx(1)
    assert line.seconds(21_300_000_000_000, 204_800_000_000) == pytest.approx(2)


def test_every_device_is_dense_and_sourced():
    for name, device in all_devices().items():
        assert device.source, name
        rates = device.tflops
        assert device.peak(device.default) is not None
        if rates.fp16 and rates.int8:
            # Twice at each halving of the operands; with sparsity it would be four times.
            assert rates.int8 / rates.fp16 == pytest.approx(2, rel=0.02) or name.startswith("rtx")
        if rates.fp16 and rates.fp8:
            assert rates.fp8 / rates.fp16 == pytest.approx(2, rel=0.02)


def test_a_stream_describes_the_newest_latent_alone():
    windows, stream = (
        plan_run(WAN, Setting(480, 832, 25, 4), mode, question()) for mode in ("windows", "stream")
    )
    assert (windows.new_frames, stream.new_frames) == (24, 4)
    saved = windows.parts["transformer"].operations - stream.parts["transformer"].operations
    # Six of seven latents do not pass the last whole block's query, output and feed-forward.
    assert saved / windows.parts["transformer"].operations == pytest.approx(6 / 7 / 18, rel=0.15)
    assert stream.rate == pytest.approx(4 / stream.seconds)
    assert stream.latency == pytest.approx(3 / 30 + stream.seconds)


def test_an_encoder_of_single_frames_sees_each_once():
    tiny = load_card("tiny")
    run = plan_run(tiny, Setting(192, 256, 9, 1), "stream", question())
    alone = convolutional_encoder(tiny.encoder, (1, 192, 256), fusion="all")
    assert run.parts["encoder"].operations == alone.operations


def test_candidates_that_hold_the_rate_come_first_and_largest_first():
    asked = question("thor")
    runs = candidate_runs(WAN, asked)
    held = [holds(run, 30) for run in runs]
    assert held == sorted(held, reverse=True)
    assert 0 < sum(held) < len(held)
    sizes = [run.setting.height * run.setting.width for run in runs if holds(run, 30)]
    assert all(a >= b for a, b in pairwise(sizes))
    for run in runs:
        assert run.setting.height % 16 == run.setting.width % 16 == 0
        assert run.setting.width / run.setting.height == pytest.approx(832 / 480, rel=0.05)
        assert (run.setting.frames - 1) % run.setting.temporal_stride == 0
        assert run.fits == (run.memory_bytes <= 0.8 * 128e9)


def test_more_decomposed_memory_than_a_device_has_does_not_fit():
    device = msgspec.structs.replace(find_device("orin-nx"), fusion="none")
    whole = plan_run(WAN, Setting(480, 832, 25, 1), "card", question())
    assert whole.fits
    asked = Question(device=device, precision="bf16", efficiency=0.5, points=64, rate=30)
    run = plan_run(WAN, Setting(480, 832, 25, 1), "card", asked)
    # 39,000 x 39,000 x 12 heads x 2 bytes.
    assert run.memory_bytes > 36.5e9
    assert not run.fits


# The command


def run(*arguments: str):
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def refusal(*arguments: str) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, InputError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_wan_with_and_without_temporal_compression():
    result = run("wan2.1-t2v-1.3b", "--device", "thor", "--json")
    assert result.exception is None, result.output
    printed = json.loads(result.stdout)
    frame_by_frame, native = printed["comparisons"]
    assert (frame_by_frame["tokens"], native["tokens"]) == (39000, 10920)
    for comparison, whole, kept in ((frame_by_frame, 763, 227), (native, 101, 30)):
        pipeline, parts = comparison["pipeline"], comparison["kept"]["parts"]
        assert set(pipeline) == {"text encoder", "encoder", "transformer", "decoder"}
        assert pipeline["transformer"]["operations"] / 1e12 == pytest.approx(whole, abs=0.6)
        assert parts["transformer"]["operations"] / 1e12 == pytest.approx(kept, abs=0.6)
        assert comparison["transformer_ratio"] == pytest.approx(whole / kept, rel=0.02)
        everything = sum(part["operations"] for part in pipeline.values())
        ours = sum(part["operations"] for part in parts.values())
        assert comparison["ratio"] == pytest.approx(everything / ours)
    assert printed["holding"] == printed["candidates"][: len(printed["holding"])]


def test_the_printed_plan():
    text = run("wan2.1-t2v-1.3b", "--device", "orin-agx").stdout
    for figure in ("39000 tokens", "10920 tokens", "227", "763", "29.6", "101", "times"):
        assert figure in text
    text = run("wan2.1-t2v-1.3b", "--device", "orin-nx", "--rate", "1000").stdout
    assert "none holds 1000 frames a second" in text
    text = run("tiny", "--device", "cpu-2-core").stdout
    assert "1536 tokens" in text
    assert "decoder" not in text


def test_precision_and_efficiency_change_the_time():
    def seconds(*options: str) -> float:
        printed = run("wan2.1-t2v-1.3b", "--device", "h100", "--json", *options).stdout
        return json.loads(printed)["comparisons"][0]["kept"]["seconds"]

    assert seconds("--efficiency", "0.25") == pytest.approx(2 * seconds())
    assert seconds("--precision", "fp32") > 5 * seconds()


def test_the_devices_are_listed():
    assert "Orin" in run("--device", "list").stdout
    assert set(json.loads(run("--device", "list", "--json").stdout)) == set(all_devices())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("tiny", "--device", "abacus"), "there are: orin-nx"),
        (("huge", "--device", "thor"), "no card is named 'huge'; there are: "),
        (("tiny",), "give a card and --device"),
        (("--device", "thor"), "give a card and --device"),
        (("tiny", "--device", "cpu-2-core", "--precision", "bf16"), "does not compute in bf16"),
        (("tiny", "--device", "thor", "--precision", "fp8"), "there are: fp16, bf16, fp32"),
        (("tiny", "--device", "thor", "--efficiency", "1.5"), "no share of the peak"),
        (("tiny", "--device", "thor", "--efficiency", "nan"), "no share of the peak"),
        (("tiny", "--device", "thor", "--rate", "0"), "no frame rate"),
        (("tiny", "--device", "thor", "--rate", "nan"), "no frame rate"),
    ],
)
def test_what_cannot_be_planned(arguments, complaint):
    assert complaint in refusal(*arguments)


def test_a_picture_that_does_not_divide_into_cells(tmp_path):
    text = (bundled_model().parent / "tiny.toml").read_text()
    (tmp_path / "odd.toml").write_text(text.replace("height = 192", "height = 190"))
    complaint = refusal(str(tmp_path / "odd.toml"), "--device", "thor")
    assert "do not divide into cells of 8" in complaint


def test_planning_needs_no_torch():
    code = (
        "import sys, vditrack_export.plan.cli as cli;"
        "cli.plan('wan2.1-t2v-1.3b', 'thor', 30, 64, 0.5, None, True);"
        "assert not {'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
