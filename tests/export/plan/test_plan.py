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
from vditrack.bundle.configuration import FlowTracking, Recovery, Visibility
from vditrack.bundle.folder import bundled_model
from vditrack.coordinates import Grid
from vditrack.errors import InputError, VditrackError, install_command
from vditrack.features import feature_map as features
from vditrack.features.feature_map import FeatureMap
from vditrack.points import descriptor_matching as matching
from vditrack.points import forward_backward as consistency
from vditrack.points.match_tracker import MatchTracker
from vditrack_export.card import card_path, load_card
from vditrack_export.families.tiny.autoencoder import TinyEncoder
from vditrack_export.families.tiny.shapes import Convolutions
from vditrack_export.plan.candidates import candidate_runs, holds
from vditrack_export.plan.cli import plan
from vditrack_export.plan.devices import all_devices, find_device
from vditrack_export.plan.interpolation import choose_lengths, interpolate
from vditrack_export.plan.lowering import lower
from vditrack_export.plan.matching import matching_cost
from vditrack_export.plan.networks import record_feature_path
from vditrack_export.plan.pipeline import Work, reference_costs, tracking_costs, transformer_share
from vditrack_export.plan.report import compare, make_report
from vditrack_export.plan.roofline import roofline
from vditrack_export.plan.runs import Question, plan_run
from vditrack_export.plan.settings import Setting, card_setting
from vditrack_export.tiny.model import build_transformer

WAN = load_card("wan2.1-t2v-1.3b")
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
    costs = reference_costs(WAN, Setting(480, 832, 25, 4 if compressed else 1), "all")
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
    assert costs["transformer"].operations == 2 * once
    assert costs["transformer"].weights == pytest.approx(count_weights(model), rel=1e-3)
    assert costs["encoder"].operations == encoded
    assert costs["decoder"].operations == decoded
    if compressed:
        both = costs["encoder"].weights + costs["decoder"].weights
        assert both == pytest.approx(count_weights(vae), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [True, False])
def test_autoencoder_of_cogvideox(compressed):
    card = load_card("cogvideox-2b")
    costs = reference_costs(card, Setting(480, 720, 25, 4 if compressed else 1), "all")
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
    assert (costs["encoder"].operations, costs["decoder"].operations) == (encoded, decoded)
    both = costs["encoder"].weights + costs["decoder"].weights
    assert both == pytest.approx(count_weights(model), rel=1e-4)


def test_text_encoder():
    config = UMT5Config(
        num_layers=24, d_model=4096, d_kv=64, d_ff=10240, num_heads=64, vocab_size=256384
    )
    with torch.device("meta"):
        model, tokens = UMT5EncoderModel(config).eval(), torch.empty(1, 512, dtype=torch.long)
    cost = reference_costs(WAN, Setting(480, 832, 25, 4), "all")["text encoder"]
    assert cost.operations == 2 * count_operations(lambda: model(tokens))
    assert cost.weights == count_weights(model)


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
    assert isinstance(tiny.encoder, Convolutions)
    assert TinyEncoder().shape == {
        "latents": tiny.encoder.latent_channels,
        "widths": list(tiny.encoder.widths),
    }
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
        assert dataclasses.replace(guess, peak=0) == dataclasses.replace(exact, peak=0)
        assert exact.peak <= guess.peak <= 1.1 * exact.peak


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
    costs = tracking_costs(WAN, setting, Work(setting.latent_frames, 24, 64), "all")
    whole = reference_costs(WAN, setting, "all")["transformer"]
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
    stencil = features._stencil_weights
    monkeypatch.setattr(
        features, "_stencil_weights", lambda falloff: stencil(falloff).view(Counted)
    )
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


# Time


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
    with torch.device("meta"):
        encoder = TinyEncoder().eval()
    alone = count_operations(lambda: encoder(torch.empty(1, 3, 192, 256, device="meta")))
    assert run.parts["encoder"].operations == alone


@pytest.mark.slow
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
        (("tiny", "--device", "thor", "--efficiency", "1.5"), "not a share of the peak"),
        (("tiny", "--device", "thor", "--efficiency", "nan"), "not a share of the peak"),
        (("tiny", "--device", "thor", "--rate", "inf"), "--rate inf is not a frame rate"),
        (("tiny", "--device", "thor", "--points", "1" + 30 * "0"), "is too many"),
        (("tiny", "--device", "thor", "--rate", "0"), "not a frame rate"),
        (("tiny", "--device", "thor", "--rate", "nan"), "not a frame rate"),
    ],
)
def test_what_cannot_be_planned(arguments, complaint):
    assert complaint in refusal(*arguments)


def test_a_picture_that_does_not_divide_into_cells(tmp_path):
    text = (bundled_model().parent / "tiny.toml").read_text()
    (tmp_path / "odd.toml").write_text(text.replace("height = 192", "height = 190"))
    complaint = refusal(str(tmp_path / "odd.toml"), "--device", "thor")
    assert "do not divide into cells of 8" in complaint


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("layers = 3", "layers = 100000", "transformer.layers is 100000, and no model has more"),
        ("heads = 6", "heads = 600000000", "transformer.heads is 600000000"),
        ("height = 192", "height = 192000000", "input.height is 192000000"),
        ("widths = [32, 64, 192]", "widths = [32, 640000000, 192]", "encoder.widths is 640000000"),
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
def test_every_family_is_planned(name):
    frames, stride = {"ltx-video": (9, 8), "wan2.2-ti2v-5b": (9, 4)}.get(name, (3, 1))
    single = name in ("adm-imagenet-256", "stable-diffusion-2.1")
    frames = 1 if single else frames
    card = make_small_card(name, frames=frames, temporal_stride=stride, size=(160, 224))
    report = make_report(card, question())
    for comparison in report.comparisons:
        assert set(comparison.kept.parts) == {"encoder", "transformer", "matching"}
        assert set(comparison.pipeline) >= {"encoder", "transformer"}
        assert comparison.transformer_ratio > 1
    settings = [candidate.setting for candidate in report.candidates]
    strides = {setting.temporal_stride for setting in settings}
    assert strides == set(card.encoder.temporal_strides)
    assert ({setting.frames for setting in settings} == {1}) == single
    for setting in settings:
        assert setting.height % card.cell == setting.width % card.cell == 0
    assert len(report.holding) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("cogvideox-2b", [33750, 9450]),
        ("cosmos-predict2-2b", [88000, 24640]),
        ("wan2.2-ti2v-5b", [6160]),
    ],
)
def test_the_comparisons_at_full_size(name, tokens):
    card, target = load_card(name), question()
    settings = [card_setting(card)]
    if len(tokens) > 1:
        settings.append(dataclasses.replace(settings[0], temporal_stride=4))
    for setting, count in zip(settings, tokens, strict=True):
        comparison = compare(card, setting, target)
        assert comparison.tokens == count
        assert set(comparison.pipeline) == {"text encoder", "encoder", "transformer", "decoder"}
        assert comparison.pipeline["encoder"] == comparison.kept.parts["encoder"]
        assert comparison.transformer_ratio > 2
    ratio = compare(card, settings[0], target).transformer_ratio
    assert ratio == pytest.approx(2 / transformer_share(card))


def test_cogvideox_encodes_every_window_anew():
    card, setting = load_card("cogvideox-2b"), Setting(480, 720, 25, 4)
    windows, stream = (plan_run(card, setting, mode, question()) for mode in ("windows", "stream"))
    assert (windows.new_frames, stream.new_frames) == (24, 4)
    assert windows.parts["encoder"] == stream.parts["encoder"]
