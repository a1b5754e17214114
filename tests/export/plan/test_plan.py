"""Plans: figures by hand, devices, frame rates, and the command."""

import dataclasses
import json
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
import typer
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel
from typer.testing import CliRunner

from doubles.flops import count_operations, count_weights
from doubles.small_cards import SMALL_CARDS, make_small_card
from vditrack.bundle.configuration import FlowTracking, LiveTracking, Visibility
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.bundle.manifest import Precision
from vditrack.bundle.redetection import Recovery
from vditrack.coordinates import Grid
from vditrack.errors import InputError, VditrackError, install_command
from vditrack.features import feature_map as features
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import SlidingWindow, clip_features
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.session import ArraySession
from vditrack.points import descriptor_matching as matching
from vditrack.points import forward_backward as consistency
from vditrack.points.match_tracker import MatchTracker
from vditrack_export.card import card_path, load_card
from vditrack_export.families.tiny.autoencoder import TinyEncoder
from vditrack_export.families.tiny.shapes import Convolutions
from vditrack_export.plan.candidates import candidate_plans, holds
from vditrack_export.plan.cli import plan
from vditrack_export.plan.devices import all_devices, find_device
from vditrack_export.plan.interpolation import choose_lengths, interpolate
from vditrack_export.plan.lowering import lower
from vditrack_export.plan.matching import matching_cost
from vditrack_export.plan.networks import (
    record_decoder,
    record_feature_path,
    record_text_encoder,
    record_transformer,
)
from vditrack_export.plan.pipeline import (
    graph_costs,
    record_encoders,
    reference_operations,
    transformer_cost,
    transformer_share,
)
from vditrack_export.plan.report import make_report
from vditrack_export.plan.runs import Question, plan_bundle
from vditrack_export.plan.settings import Setting, card_setting, latent_size, window_input
from vditrack_export.plan.uses import clip_use, stream_use
from vditrack_export.tiny.model import BUNDLED, build_transformer

FP32 = Precision(encoder="fp32", features="fp32")
BF16 = Precision(encoder="fp16", features="bf16")
WAN = load_card("wan2.1-t2v-1.3b")
ON_THOR = ("wan2.1-t2v-1.3b", "--device", "thor")
STRIDE_4 = ("--temporal-stride", "4")
WAN_CONFIG = {
    "num_layers": 30,
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "ffn_dim": 8960,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": (1, 2, 2),
    "text_dim": 4096,
    "freq_dim": 256,
}
"""``transformer/config.json`` of Wan2.1-T2V-1.3B."""


# Operations at full size, by hand or by torch's own counter


@pytest.mark.parametrize(("compressed", "latents"), [(True, 7), (False, 25)])
def test_wan(compressed, latents):
    """On the meta device: the checkpoint's own sizes, HeFT's window, no memory."""
    setting = Setting(480, 832, 25, 4 if compressed else 1)
    operations = reference_operations(WAN, setting)
    with torch.device("meta"):
        model, vae = WanTransformer3DModel(**WAN_CONFIG).eval(), AutoencoderKLWan().eval()
        noised, step = torch.empty(1, 16, latents, 60, 104), torch.tensor([60.0])
        clip, prompt = torch.empty(1, 3, 25, 480, 832), torch.empty(1, 512, 4096)
        once = count_operations(lambda: model(noised, step, prompt))
        if compressed:
            encoded = count_operations(lambda: vae._encode(clip))
            decoded = count_operations(lambda: vae._decode(noised))
        else:
            encoded = count_operations(lambda: vae.quant_conv(vae.encoder(clip)))
            decoded = count_operations(lambda: vae.decoder(vae.post_quant_conv(noised)))
    assert operations["transformer"] == 2 * once
    assert operations["encoder"] == encoded
    assert operations["decoder"] == decoded
    size = latent_size(WAN, setting)
    read = record_transformer(WAN, size).weights
    assert read == pytest.approx(count_weights(model), rel=1e-3)
    if compressed:
        decoder = record_decoder(WAN, size, 4)
        both = record_encoders(WAN, setting).step.weights + decoder.weights
        assert both == pytest.approx(count_weights(vae), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [True, False])
def test_autoencoder_of_cogvideox(compressed):
    card = load_card("cogvideox-2b")
    setting = Setting(480, 720, 25, 4 if compressed else 1)
    operations = reference_operations(card, setting)
    with torch.device("meta"):
        model = AutoencoderKLCogVideoX().eval()
        clip = torch.empty(1, 3, 25, 480, 720)
        latents = torch.empty(1, 16, 7 if compressed else 25, 60, 90)
    if not compressed:
        # As HeFT has it: no frames are averaged, none repeated.
        for block in model.encoder.down_blocks:
            for sampler in block.downsamplers or ():
                sampler.compress_time = False
        for block in model.decoder.up_blocks:
            for sampler in block.upsamplers or ():
                sampler.compress_time = False
    with torch.device("meta"):
        encoded = count_operations(lambda: model._encode(clip))
        decoded = count_operations(lambda: model._decode(latents))
    assert (operations["encoder"], operations["decoder"]) == (encoded, decoded)
    decoder = record_decoder(card, latent_size(card, setting), setting.temporal_stride)
    both = record_encoders(card, setting).step.weights + decoder.weights
    assert both == pytest.approx(count_weights(model), rel=1e-4)


def test_text_encoder():
    config = UMT5Config(
        num_layers=24, d_model=4096, d_kv=64, d_ff=10240, num_heads=64, vocab_size=256384
    )
    with torch.device("meta"):
        model, tokens = UMT5EncoderModel(config).eval(), torch.empty(1, 512, dtype=torch.long)
    recording = record_text_encoder(WAN)
    assert recording.operations == count_operations(lambda: model(tokens))
    assert recording.weights == count_weights(model)
    operations = reference_operations(WAN, Setting(480, 832, 25, 4))
    assert operations["text encoder"] == 2 * recording.operations


def test_the_cards_shapes_are_the_models():
    """The defaults of diffusers' autoencoder are Wan's; tiny's shapes are those of its recipe."""
    tiny, recipe = load_card("tiny"), build_transformer()
    shape = tiny.transformer
    assert {
        "num_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "attention_head_dim": shape.head_dim,
        "ffn_dim": shape.feed_forward,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "text_dim": shape.text_dim,
        "freq_dim": shape.frequency_dim,
        "patch_size": shape.patch,
    }.items() <= {**recipe.config, "patch_size": tuple(recipe.config.patch_size)}.items()
    encoder = tiny.encoder
    assert isinstance(encoder, Convolutions)
    assert (BUNDLED.latents, BUNDLED.widths) == (encoder.latent_channels, encoder.widths)
    assert (BUNDLED.residuals, BUNDLED.context) == (encoder.residuals, encoder.context)
    with torch.device("meta"):
        default = AutoencoderKLWan().config
    wan = WAN.encoder
    assert (default.base_dim, default.z_dim) == (wan.base_width, wan.latent_channels)
    assert (tuple(default.dim_mult), default.num_res_blocks) == (wan.multiples, wan.residual_blocks)
    assert tuple(default.temperal_downsample) == wan.temporal_downsample


@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "hunyuan-video", "i2vgen-xl"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("fusion", ["all", "attention"])
def test_lengths_between_those_counted(name, whole, fusion):
    card = make_small_card(name, frames=25)

    def count(length: int):
        return lower(record_feature_path(card, (length, 8, 12), length if whole else 1), fusion)

    counted = choose_lengths([2, 3, 4, 5, 6, 7, 9, 13, 17, 21, 25])
    assert counted == (2, 7, 25)
    for length in (3, 5, 13, 21):
        guess, exact = interpolate(count, counted, length), count(length)
        assert dataclasses.replace(guess, peak_bytes=exact.peak_bytes) == exact
        assert exact.peak_bytes <= guess.peak_bytes <= 1.1 * exact.peak_bytes


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
    described = setting.latent_frames
    kept = graph_costs(WAN, setting, described, FP32, "all").transformer.operations
    whole = reference_operations(WAN, setting)["transformer"]
    assert whole / 1e12 == pytest.approx(reference, abs=0.6)
    assert kept / 1e12 == pytest.approx(truncated, abs=0.6)
    tokens = setting.latent_frames * setting.height * setting.width // 256
    by_hand = (86.5e6 - 4 * 510 * 1536) * tokens + 4 * tokens**2 * 1536
    assert kept == pytest.approx(18 * by_hand, rel=0.01)


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
    stencil = features._stencil_weights
    monkeypatch.setattr(
        features, "_stencil_weights", lambda falloff: stencil(falloff).view(Counted)
    )
    random = np.random.default_rng(0)
    descriptors = random.normal(size=(20, 30, channels)).astype(np.float32)
    picture = np.zeros((grid.height, grid.width, 3), np.uint8)
    alive = MatchTracker(grid, settings, LiveTracking())
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
    assert held.operations < 0.05 * matched.operations and held.peak_bytes < matched.peak_bytes
    assert held.operations == 2 * matching_cost(grid, 40, 32, settings).operations


# A bundle on a device


@pytest.fixture
def few_candidates(monkeypatch):
    """Double: the largest and the smallest picture of a plan's candidates, and three windows."""
    monkeypatch.setattr("vditrack_export.plan.candidates._SCALES", (1.0, 0.3))
    monkeypatch.setattr("vditrack_export.plan.candidates._WINDOWS", (3, 5, 25))


def question(device: str = "orin-agx", **changes: object) -> Question:
    asked = {"precision": BF16, "efficiency": 0.5, "points": 64, "rate": 30.0}
    return Question(device=find_device(device), **asked | changes)


def window(card, height: int, width: int, frames: int, stride: int, described: int | None = None):
    size = window_input(card, Setting(height, width, frames, stride))
    return msgspec.structs.replace(size, described_frames=described or frames)


def test_a_stream_runs_both_networks_once_a_latent():
    """Whether it describes the newest latent or all; tracking runs for each of its four frames."""
    whole, newest = (
        plan_bundle(WAN, window(WAN, 480, 832, 25, 4, described), question())
        for described in (25, 4)
    )
    for bundle in (whole, newest):
        once = sum(
            bundle.engines[name].seconds + bundle.engines[name].copy_seconds
            for name in ("encoder", "transformer")
        )
        assert bundle.latent_seconds == pytest.approx(once + 4 * bundle.matching_seconds)
        assert bundle.stream_rate == pytest.approx(4 / bundle.latent_seconds)
    every, last = (bundle.engines["transformer"].operations for bundle in (whole, newest))
    # Six of seven latents do not pass the last whole block's query, output and feed-forward.
    assert (every - last) / every == pytest.approx(6 / 7 / 18, rel=0.15)


class CountedRuns(ArraySession):
    """A graph of the bundled model that counts its runs."""

    def __init__(self, graph) -> None:
        self._session, self.runs = open_session(graph), 0
        self.inputs, self.outputs = self._session.inputs, self._session.outputs

    def run_arrays(self, inputs):
        self.runs += 1
        return self._session.run(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tiny", "wan", "cogvideox"])
def test_the_runtime_runs_each_graph_as_often(exported_pipelines, family):
    """A clip, window by window, and a stream once its first frame has gone by."""
    tiny = family == "tiny"
    bundle = load_bundle(bundled_model()) if tiny else exported_pipelines.bundle(family)
    manifest, sessions = bundle.manifest, {}

    def open_counted(graph):
        sessions[graph.stem] = CountedRuns(graph)
        return sessions[graph.stem]

    extractor = FeatureExtractor(bundle, open_counted)
    use = clip_use(manifest.encoder, manifest.input)
    size = (manifest.input.height, manifest.input.width, 3)

    def runs(count: int) -> list[int]:
        clip = np.zeros((count, *size), np.uint8)
        for session in sessions.values():
            session.runs = 0
        assert len(list(clip_features(extractor, clip))) == count
        names = ("encoder_start", "encoder", "features")
        return [sessions[name].runs if name in sessions else 0 for name in names]

    more, fewer = (runs(manifest.input.frames + number * use.new_frames) for number in (3, 2))
    assert np.subtract(more, fewer).tolist() == [use.starts, use.encodings, use.windows]
    stream = SlidingWindow(extractor)
    stream.push(np.zeros(size, np.uint8))
    for session in sessions.values():
        session.runs = 0
    use = stream_use(manifest.encoder, manifest.input)
    for _ in range(5 * use.new_frames):
        stream.push(np.zeros(size, np.uint8))
    assert (sessions["encoder"].runs, sessions["features"].runs) == (
        5 * use.encodings,
        5 * use.windows,
    )


def test_an_encoder_of_single_frames_sees_each_once():
    tiny = load_card("tiny")
    plan = plan_bundle(tiny, window(tiny, 192, 256, 9, 1), question())
    with torch.device("meta"):
        shape = (BUNDLED.latents, BUNDLED.widths, BUNDLED.residuals, BUNDLED.context)
        encoder = TinyEncoder(*shape).eval()
    alone = count_operations(lambda: encoder(torch.empty(1, 3, 192, 256, device="meta")))
    assert plan.engines["encoder"].operations == alone
    assert plan.cache_bytes == 0


@pytest.mark.slow
@pytest.mark.usefixtures("few_candidates")
def test_candidates_that_hold_the_rate_come_first_and_largest_first():
    asked = question("thor")
    plans = candidate_plans(WAN, asked)
    held = [holds(each, 30) for each in plans]
    assert held == sorted(held, reverse=True)
    assert 0 < sum(held) < len(held)
    sizes = [p.setting.height * p.setting.width for p in plans if holds(p, 30)]
    assert all(a >= b for a, b in pairwise(sizes))
    for each in plans:
        setting = each.setting
        assert each.described == 1
        assert setting.height % 16 == setting.width % 16 == 0
        assert setting.width / setting.height == pytest.approx(832 / 480, rel=0.05)
        assert (setting.frames - 1) % setting.temporal_stride == 0
        assert each.fits == (each.memory.needed <= 0.8 * 128e9)


def test_windows_of_chunks_have_frames_for_more_than_the_first_chunk(monkeypatch):
    planned = []

    def collect(_card, window, _question, *, counted):
        planned.append(window)
        return SimpleNamespace(fits=False, stream_rate=0.0, setting=window, encoder=None)

    monkeypatch.setattr("vditrack_export.plan.candidates.plan_bundle", collect)
    candidate_plans(load_card("wan2.1-causal-1.3b-chunk3"), question())
    assert {window.frames for window in planned if window.temporal_stride == 4} == {21}


def test_more_memory_than_a_device_has_does_not_fit():
    size = window(WAN, 480, 832, 25, 4)
    asked = question("orin-nx")
    small = msgspec.structs.replace(asked.device, memory=7)
    plan = plan_bundle(WAN, size, dataclasses.replace(asked, device=small))
    assert 5.6e9 < plan.memory.needed < 7e9
    assert not plan.fits
    # Where the host has a memory of its own, what lies there does not count.
    asked = question("rtx-3060")
    apart = plan_bundle(WAN, size, asked)
    assert apart.memory.needed == plan.memory.device
    assert apart.fits


@pytest.mark.usefixtures("no_candidates")
def test_attention_that_is_not_fused_stores_tokens_times_tokens():
    report = make_report(WAN, question())
    # 39,000 x 39,000 x 12 heads x 2 bytes.
    assert 36.5e9 < report.unfused_bytes < 45e9
    assert report.bundle.fits


# The command


@pytest.fixture
def no_candidates(monkeypatch):
    """Other sizes, which take most of a plan's time, are not planned."""
    monkeypatch.setattr("vditrack_export.plan.report.candidate_plans", lambda *_: [])


def run(*arguments: str):
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def refusal(*arguments: str) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, InputError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.mark.parametrize(
    ("options", "tokens", "whole", "kept"),
    [
        ((), 39000, 763, 227),
        (("--temporal-stride", "4"), 10920, 101, 30),
    ],
)
@pytest.mark.usefixtures("no_candidates")
def test_wan_with_and_without_temporal_compression(options, tokens, whole, kept):
    result = run("wan2.1-t2v-1.3b", "--device", "thor", "--json", *options)
    assert result.exception is None, result.output
    printed = json.loads(result.stdout)
    assert printed["tokens"] == tokens
    pipeline, ours = printed["pipeline_operations"], printed["kept_operations"]
    assert set(pipeline) == {"text encoder", "encoder", "transformer", "decoder"}
    assert pipeline["transformer"] / 1e12 == pytest.approx(whole, abs=0.6)
    assert ours["transformer"] / 1e12 == pytest.approx(kept, abs=0.6)
    assert printed["bundle"]["engines"]["transformer"]["operations"] == ours["transformer"]
    assert printed["precision"] == {"encoder": "fp16", "features": "bf16"}


@pytest.mark.usefixtures("few_candidates")
def test_the_printed_plan():
    text = run("wan2.1-t2v-1.3b", "--device", "orin-agx", "--temporal-stride", "4").stdout
    given = "--weights DIR --temporal-stride 4 --precision bf16 -o BUNDLE"
    command = f"vditrack export wan2.1-t2v-1.3b {given}"
    for figure in ("10920 tokens", "29.6", "8.05", "247 TFLOP", "fits", command):
        assert figure in text
    sentences = " ".join(text.split())
    # 10,920 x 10,920 x 12 heads x 2 bytes are 2.86 GB; the rest are other activations.
    assert "all activations of the transformer together need 4.44 GB" in sentences
    assert "once for each 4 frames" in sentences
    forms = ("own encoder, window, as planned", "taehv, window", "taehv, cached")
    assert all(form in text for form in forms)
    assert "a model that was not trained so gives other descriptors" in sentences
    text = run("wan2.1-t2v-1.3b", "--device", "orin-nx", "--rate", "1000").stdout
    # Sizes down to 0.3 times the card's are tried.
    assert "no stream of 256 x 144 or larger holds 1000 frames a second" in " ".join(text.split())
    assert "`live` keeps up with the camera's 1000" in text
    text = run("tiny", "--device", "cpu-2-core").stdout
    assert "3072 tokens" in text
    assert "decoder" not in text


@pytest.mark.usefixtures("no_candidates")
def test_options_are_those_of_export():
    """What is planned is the bundle of the command that is printed."""
    options = ("--size", "448x256", "--frames", "13", "--described", "4", "--block", "12")
    more = ("--temporal-stride", "4", "--heads", "1,2", "--precision", "fp16")
    given = (*options, *more, "--encoder-precision", "fp32", "--encoder", "taehv")
    printed = json.loads(run("wan2.1-t2v-1.3b", "--device", "thor", "--json", *given).stdout)
    bundle = printed["bundle"]
    assert bundle["setting"] == {"height": 256, "width": 448, "frames": 13, "temporal_stride": 4}
    assert bundle["described"] == 1
    assert printed["precision"] == {"encoder": "fp32", "features": "fp16"}
    shown = printed["export"].split()
    assert shown[:3] == ["vditrack", "export", "wan2.1-t2v-1.3b"]
    paths = ("--weights", "DIR", "--encoder-weights", "FILE", "-o", "BUNDLE")
    wanted = (*given, *paths)
    assert dict(zip(shown[3::2], shown[4::2], strict=True)) == dict(
        zip(wanted[::2], wanted[1::2], strict=True)
    )
    assert "such as 0,3,7" in refusal("tiny", "--device", "thor", "--heads", "x")
    complaint = refusal("wan2.1-t2v-1.3b", "--device", "thor", "--size", "256x448")
    assert "--size 448x256" in complaint


@pytest.mark.usefixtures("no_candidates")
def test_precision_and_efficiency_change_the_time():
    def seconds(*options: str) -> float:
        printed = run("wan2.1-t2v-1.3b", "--device", "h100", "--json", *options).stdout
        return json.loads(printed)["bundle"]["engines"]["transformer"]["seconds"]

    assert seconds("--efficiency", "0.25") == pytest.approx(2 * seconds())
    assert seconds("--precision", "fp32") > 5 * seconds()


@pytest.mark.parametrize(
    "path", sorted(card_path("tiny").parent.glob("*.toml")), ids=lambda p: p.stem
)
def test_every_card_that_comes_with_vditrack_loads(path):
    """The limits of a bundle's integers are not those of a model's sizes."""
    assert load_card(str(path)).name


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
        (("tiny", "--device", "thor", "--efficiency", "1.5"), "not a share of the peak"),
        (("tiny", "--device", "thor", "--efficiency", "nan"), "not a share of the peak"),
        (("tiny", "--device", "thor", "--rate", "inf"), "--rate inf is not a frame rate"),
        (("tiny", "--device", "thor", "--points", "1" + 30 * "0"), "is too many"),
        (("tiny", "--device", "thor", "--rate", "0"), "not a frame rate"),
        (("tiny", "--device", "thor", "--rate", "nan"), "not a frame rate"),
        ((*ON_THOR, "--size", "450x257"), "--size 450x257 does not divide into cells of 16"),
        ((*ON_THOR, "--size", "450x257"), "The nearest size that does is 448x256."),
        ((*ON_THOR, "--size", "0x1"), "The nearest size that does is 16x16."),
        ((*ON_THOR, *STRIDE_4, "--frames", "24"), "Give --frames 21 or --frames 25."),
        ((*ON_THOR, *STRIDE_4, "--frames", "2"), "Give --frames 1 or --frames 5."),
        ((*ON_THOR, "--temporal-stride", "3"), "card wan2.1-t2v-1.3b allows 1 or 4."),
        ((*ON_THOR, *STRIDE_4, "--described", "5"), "give a multiple of 4 below that, or 25 for"),
    ],
)
def test_what_cannot_be_planned(arguments, complaint):
    assert complaint in refusal(*arguments)


def test_a_picture_that_does_not_divide_into_cells(tmp_path):
    text = (bundled_model().parent / "tiny.toml").read_text()
    (tmp_path / "odd.toml").write_text(text.replace("height = 384", "height = 380", 1))
    complaint = refusal(str(tmp_path / "odd.toml"), "--device", "thor")
    assert "do not divide into cells of 8" in complaint


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("layers = 2", "layers = 100000", "transformer.layers is 100000, and no model has more"),
        ("heads = 4", "heads = 600000000", "transformer.heads is 600000000"),
        ("height = 384", "height = 384000000", "<= 65536 - at `$.input.height`"),
        ("widths = [32, 64]", "widths = [32, 640000000]", "encoder.widths is 640000000"),
    ],
)
def test_an_absurd_card_is_refused_before_torch_builds_it(old, new, complaint, tmp_path):
    text = card_path("tiny").read_text()
    assert old in text
    (tmp_path / "absurd.toml").write_text(text.replace(old, new, 1))
    assert complaint in refusal(str(tmp_path / "absurd.toml"), "--device", "thor")


def test_the_verb_loads_torch_only_to_plan():
    code = (
        "import sys, vditrack_export.plan.cli as cli;"
        "cli.plan(None, 'list');"
        "assert not {'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_torch_is_missing(monkeypatch):
    for module in ("report", "runs", "pipeline"):
        monkeypatch.delitem(sys.modules, f"vditrack_export.plan.{module}", raising=False)
    # As Python has it for a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "vditrack_export.plan.report", None)
    result = run("tiny", "--device", "thor")
    assert isinstance(result.exception, VditrackError), result.output
    assert f"which is not installed. Run `{install_command('export')}`" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_CARDS)
@pytest.mark.usefixtures("few_candidates")
def test_every_family_is_planned(name):
    frames, stride = {"ltx-video": (9, 8), "wan2.2-ti2v-5b": (9, 4)}.get(name, (3, 1))
    single = name in ("adm-imagenet-256", "stable-diffusion-2.1")
    frames = 1 if single else frames
    card = make_small_card(name, frames=frames, temporal_stride=stride, size=(160, 224))
    report = make_report(card, question())
    assert set(report.bundle.engines) >= {"encoder", "transformer"}
    assert set(report.pipeline) >= {"encoder", "transformer"}
    assert report.pipeline["transformer"] > report.kept["transformer"]
    made, *others = report.latents
    assert made.planned and not any(cost.planned for cost in others)
    assert made.rate == pytest.approx(report.bundle.step_frames / report.bundle.step_seconds)
    encoders = {form.encoder for form in report.candidates}
    assert {cost.form.split(", ")[0] for cost in report.latents} == {
        encoder or "own encoder" for encoder in encoders
    }
    settings = [candidate.setting for candidate in report.candidates]
    strides = {setting.temporal_stride for setting in settings}
    assert strides == set(card.encoder.temporal_strides)
    assert ({setting.frames for setting in settings} == {1}) == single
    for setting in settings:
        assert setting.height % card.cell == setting.width % card.cell == 0
    assert len(report.holding) > 0


@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "cogvideox-5b", "hunyuan-video", "ltx-video"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fusion", ["all", "attention", "none"])
def test_two_depths_give_the_cost_of_all_blocks(name, precision, fusion):
    stride = 8 if name == "ltx-video" else 1
    card = make_small_card(name, frames=9, temporal_stride=stride)
    card = msgspec.structs.replace(
        card,
        transformer=msgspec.structs.replace(card.transformer, layers=9),
        feature=msgspec.structs.replace(card.feature, block=7),
    )
    latents = latent_size(card, card_setting(card))
    for described in {1, latents[0]}:
        whole = lower(record_feature_path(card, latents, described, precision), fusion)
        assert transformer_cost(card, latents, described, precision, fusion) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("cogvideox-2b", [33750, 9450]),
        ("cosmos-predict2-2b", [88000, 24640]),
        ("wan2.2-ti2v-5b", [6160]),
    ],
)
def test_the_pipeline_at_full_size(name, tokens):
    card = load_card(name)
    settings = [card_setting(card)]
    if len(tokens) > 1:
        settings.append(dataclasses.replace(settings[0], temporal_stride=4))
    for setting, count in zip(settings, tokens, strict=True):
        frames, rows, columns = latent_size(card, setting)
        assert frames * rows * columns // 4 == count
        operations = reference_operations(card, setting)
        assert set(operations) == {"text encoder", "encoder", "transformer", "decoder"}
    path = record_feature_path(card, latent_size(card, settings[0]), card.input.described_latents)
    whole = reference_operations(card, settings[0])["transformer"]
    assert whole / path.operations == pytest.approx(2 / transformer_share(card))


def test_cogvideox_encodes_every_window_anew():
    card = load_card("cogvideox-2b")
    plan = plan_bundle(card, window(card, 480, 720, 25, 4), question())
    assert set(plan.engines) == {"encoder", "transformer"}
    encoder = reference_operations(card, plan.setting)["encoder"]
    assert plan.engines["encoder"].operations == encoder
    assert plan.cache_bytes == plan.memory.state == 0
    # Twenty-four frames that the next window needs again.
    assert plan.memory.frames == 24 * 3 * 480 * 720
