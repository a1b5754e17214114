"""What `vditrack plan` counts of CogVideoX and Cosmos, against torch's counter and real runs."""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import msgspec
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from test_plan import counted, peak_bytes, question, run, weights_of
from torch import nn
from transformers import T5Config, T5EncoderModel

from vditrack.errors import InputError
from vditrack_export.card import load_card
from vditrack_export.families.base_family import Denoiser
from vditrack_export.families.base_shapes import Transformer
from vditrack_export.families.cogvideox import transformer as cogvideox
from vditrack_export.families.cogvideox.autoencoder import CogVideoXClipEncoder
from vditrack_export.families.cogvideox.family import CogVideoXVae
from vditrack_export.families.cogvideox.shapes import CogVideoXAutoencoder, CogVideoXTransformer
from vditrack_export.families.cosmos import transformer as cosmos
from vditrack_export.families.cosmos.shapes import CosmosTransformer
from vditrack_export.families.read_spec import Cut, Denoising
from vditrack_export.families.registry import resolve_family
from vditrack_export.families.text_encoders import T5
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.plan.cogvideox_vae import cogvideox_decoder, cogvideox_encoder
from vditrack_export.plan.families import Family, family_of
from vditrack_export.plan.layers import Reading
from vditrack_export.plan.pipeline import (
    Setting,
    card_setting,
    latent_size,
    reference_costs,
    tracking_costs,
    transformer_share,
)
from vditrack_export.plan.runs import plan_run
from vditrack_export.plan.t5 import text_encoder
from vditrack_export.plan.trace import Fusion

CARDS = ["cogvideox-2b", "cogvideox-5b", "cosmos-predict2-2b"]
COMMON = {
    "layers": 4,
    "heads": 3,
    "head_dim": 32,
    "in_channels": 8,
    "out_channels": 6,
    "patch": (1, 2, 2),
    "text_dim": 16,
    "text_tokens": 5,
}
ABSOLUTE = CogVideoXTransformer(**COMMON, feed_forward=384, time_dim=20, rotary=False)
ROTARY = msgspec.structs.replace(ABSOLUTE, rotary=True)
COSMOS = CosmosTransformer(
    **COMMON, feed_forward=192, modulation_dim=12, rope_scale=(1.0, 3.0, 3.0)
)
SMALL_AUTOENCODER = CogVideoXAutoencoder(
    image_channels=3,
    widths=(8, 16, 16, 32),
    residual_blocks=1,
    temporal_stride=4,
    latent_channels=4,
)
STEP = Denoising(timestep=50.0, signal=0.95, noise=0.05, seed=0)
SHAPES = pytest.mark.parametrize(
    "shape", [ABSOLUTE, ROTARY, COSMOS], ids=["absolute", "rotary", "cosmos"]
)


def family(shape: Transformer) -> tuple[Denoiser, Family]:
    """How export and planner treat a family."""
    card = SimpleNamespace(transformer=shape)
    return resolve_family(shape, SMALL_AUTOENCODER).denoiser, family_of(card)


def empty_prompt(shape: Transformer) -> torch.Tensor:
    """One token, and padding with zeros."""
    prompt = torch.zeros(shape.text_tokens, shape.text_dim)
    prompt[:1] = 1
    return prompt


def autoencoder(shape: CogVideoXAutoencoder = SMALL_AUTOENCODER) -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(**CogVideoXVae(shape).config(), norm_num_groups=4).eval()


def without_time(model: AutoencoderKLCogVideoX) -> AutoencoderKLCogVideoX:
    """As HeFT has it: no frames are averaged, none repeated."""
    for block in model.encoder.down_blocks:
        for sampler in block.downsamplers or ():
            sampler.compress_time = False
    for block in model.decoder.up_blocks:
        for sampler in block.upsamplers or ():
            sampler.compress_time = False
    return model


# Operations and weights


@pytest.mark.parametrize("latents", [(3, 8, 12), (1, 4, 6)])
@SHAPES
def test_whole_transformer(shape, latents):
    known, planned = family(shape)
    model = known.model_class(**known.config()).eval()
    noised = torch.zeros(1, shape.in_channels, *latents)
    operations = counted(
        lambda: known.run_noised(model, noised, torch.tensor([50.0]), empty_prompt(shape))
    )
    for fusion in get_args(Fusion):
        cost = planned.whole(shape, latents, fusion=fusion)
        assert cost.operations == operations
        assert cost.weights == weights_of(model)


@pytest.mark.parametrize("text_tokens", [1, 2, 5])
@pytest.mark.parametrize("tensor", ["keys", "queries", "hidden"])
@pytest.mark.parametrize(("block", "newest"), [(0, 3), (1, 1), (3, 2)])
@SHAPES
def test_truncated_path(shape, text_tokens, tensor, block, newest):
    latents = (3, 8, 12)
    shape = msgspec.structs.replace(shape, text_tokens=text_tokens)
    known, planned = family(shape)
    model = known.model_class(**known.config()).eval()
    cut = Cut(block, heads=(2, 0), channels=tuple(range(10)), described=newest, tensor=tensor)
    size = (shape.in_channels, *latents)
    module = known.path(model, size, cut, STEP, empty_prompt(shape)).eval()
    reading = Reading(block, heads=2, channels=10, described=newest, tensor=tensor)
    operations = counted(lambda: module(torch.zeros(1, *size)))
    for fusion in get_args(Fusion):
        cost = planned.truncated(shape, latents, reading, fusion=fusion)
        assert cost.operations == operations
        assert cost.weights == weights_of(module) + constants_of(module)


def constants_of(module: nn.Module) -> int:
    """But for what the chosen block has of the rotary tables, and its channels' numbers."""
    named = module.named_buffers()
    return sum(buffer.numel() for name, buffer in named if not name.startswith("reading."))


@pytest.mark.parametrize("frames", [1, 5, 9, 13, 21])
def test_autoencoder_with_temporal_compression(frames):
    model, latents = autoencoder(), 1 + (frames - 1) // 4
    encoder = cogvideox_encoder(SMALL_AUTOENCODER, (frames, 32, 48), compressed=True, fusion="all")
    decoder = cogvideox_decoder(SMALL_AUTOENCODER, (latents, 4, 6), compressed=True, fusion="all")
    assert encoder.operations == counted(lambda: model.encode(torch.zeros(1, 3, frames, 32, 48)))
    assert decoder.operations == counted(lambda: model.decode(torch.zeros(1, 4, latents, 4, 6)))
    assert encoder.weights + decoder.weights == weights_of(model)


@pytest.mark.parametrize("frames", [1, 5, 10])
def test_autoencoder_frame_by_frame(frames):
    model, clip = without_time(autoencoder()), torch.zeros(1, 3, frames, 32, 48)
    latents = torch.zeros(1, 4, frames, 4, 6)
    with torch.no_grad():
        assert model.encode(clip).latent_dist.mode().shape == latents.shape
    encoder = cogvideox_encoder(SMALL_AUTOENCODER, (frames, 32, 48), compressed=False, fusion="all")
    decoder = cogvideox_decoder(SMALL_AUTOENCODER, (frames, 4, 6), compressed=False, fusion="all")
    assert encoder.operations == counted(lambda: model.encode(clip))
    assert decoder.operations == counted(lambda: model.decode(latents))


@pytest.mark.parametrize("temporal_stride", [1, 4])
def test_an_exported_encoder_costs_what_is_planned(temporal_stride):
    module = CogVideoXClipEncoder(autoencoder(), temporal_stride).eval()
    frames = torch.zeros(13, 32, 48, 3, dtype=torch.uint8)
    compressed = temporal_stride > 1
    cost = cogvideox_encoder(SMALL_AUTOENCODER, (13, 32, 48), compressed=compressed, fusion="all")
    assert cost.operations == counted(lambda: module(frames))
    assert cost.weights == weights_of(module)


@pytest.mark.parametrize("gated", [True, False])
def test_text_encoder(gated):
    shape = T5(layers=2, width=24, heads=3, head_dim=8, feed_forward=40, vocabulary=50, gated=gated)
    model, cost = t5(shape), text_encoder(shape, 16, fusion="all")
    tokens = torch.zeros(1, 16, dtype=torch.long)
    assert cost.operations == counted(lambda: model(tokens, attention_mask=torch.ones_like(tokens)))
    assert cost.weights == weights_of(model)


def t5(shape: T5) -> T5EncoderModel:
    config = T5Config(
        num_layers=shape.layers,
        d_model=shape.width,
        num_heads=shape.heads,
        d_kv=shape.head_dim,
        d_ff=shape.feed_forward,
        vocab_size=shape.vocabulary,
        feed_forward_proj="gated-gelu" if shape.gated else "relu",
    )
    return T5EncoderModel(config).eval()


@pytest.fixture
def no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are made without what needs the prompt's or the noise's numbers."""
    for module in (cogvideox, cosmos):
        monkeypatch.setattr(module, "seeded_noise", lambda shape, seed: torch.empty(*shape))
    merged = torch.empty(2, 1024, device="meta"), torch.zeros(2, device="cpu")
    monkeypatch.setattr(cosmos, "merge_tokens", lambda prompt: merged)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("name", CARDS)
@pytest.mark.usefixtures("no_numbers")
def test_transformers_at_full_size(name, stride):
    """On the meta device: the checkpoint's own sizes, HeFT's window, no memory."""
    card, known = load_card(name), load_card(name).family.denoiser
    card = msgspec.structs.replace(
        card, input=msgspec.structs.replace(card.input, temporal_stride=stride)
    )
    setting, shape, feature = card_setting(card), card.transformer, card.feature
    size = (shape.in_channels, *latent_size(card, setting))
    channels = known.channels(feature)
    cut = Cut(feature.block, feature.heads, channels, setting.latent_frames, feature.tensor)
    with torch.device("meta"):
        model = known.model_class(**known.config()).eval()
        noised, prompt = torch.empty(1, *size), torch.empty(shape.text_tokens, shape.text_dim)
        whole = counted(
            lambda: known.run_noised(model, noised, torch.tensor([feature.timestep]), prompt)
        )
        path = known.path(model, size, cut, STEP, prompt).eval()
        kept = counted(lambda: path(noised))
    reference = reference_costs(card, setting, fusion="all")["transformer"]
    tracking = tracking_costs(
        card, setting, described=setting.latent_frames, new_frames=24, points=64, fusion="all"
    )["transformer"]
    assert (reference.operations, reference.weights) == (2 * whole, weights_of(model))
    assert tracking.operations == kept
    assert transformer_share(card) == kept / whole


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [True, False])
def test_autoencoder_at_full_size(compressed):
    card = load_card("cogvideox-2b")
    costs = reference_costs(card, Setting(480, 720, 25, 4 if compressed else 1), fusion="all")
    with torch.device("meta"):
        model = AutoencoderKLCogVideoX().eval()
        if not compressed:
            without_time(model)
        clip, latents = torch.empty(1, 3, 25, 480, 720), torch.empty(1, 16, 25, 60, 90)
        if compressed:
            latents = latents[:, :, :7]
        assert costs["encoder"].operations == counted(lambda: model._encode(clip))
        assert costs["decoder"].operations == counted(lambda: model._decode(latents))
    assert costs["encoder"].weights + costs["decoder"].weights == weights_of(model)


@pytest.mark.parametrize("name", ["cogvideox-2b", "cosmos-predict2-2b"])
def test_text_encoder_at_full_size(name):
    card = load_card(name)
    assert isinstance(card.text_encoder, T5)
    length = card.transformer.text_tokens
    with torch.device("meta"):
        model, tokens = t5(card.text_encoder), torch.empty(1, length, dtype=torch.long)
        operations = counted(lambda: model(tokens))
    cost = reference_costs(card, Setting(32, 32, 5, 4), fusion="all")["text encoder"]
    assert (cost.operations, cost.weights) == (2 * operations, weights_of(model))


@pytest.mark.parametrize("name", ["tiny", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b", *CARDS])
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.15, 1.0), (0.3, 0.6)])
@pytest.mark.parametrize("layout", ["rotary", "reference"])
def test_the_planned_channels_are_those_exported(name, span, layout):
    card = load_card(name)
    feature = msgspec.structs.replace(card.feature, frequency_range=span, frequency_layout=layout)
    exported = card.family.denoiser.channels(feature)
    planned = family_of(card).channels(card.transformer.head_dim, feature)
    assert tuple(planned) == exported


# Memory and time


def exported_transformer(shape: Transformer, path: Path):
    shape = msgspec.structs.replace(
        shape, heads=4, head_dim=64, feed_forward=1024, patch=(1, 1, 1), text_tokens=64
    )
    latents = (8, 32, 32)
    known, planned = family(shape)
    model = known.model_class(**known.config()).eval()
    cut = Cut(block=3, heads=(0,), channels=tuple(range(10)), described=1)
    size = (shape.in_channels, *latents)
    module = known.path(model, size, cut, STEP, empty_prompt(shape)).eval()
    example = torch.zeros(1, *size)
    export_graph(module, {"latents": example}, path, outputs=["descriptors"])
    return planned.truncated(shape, latents, Reading(3, 1, 10, described=1), fusion="attention")


def exported_encoder(path: Path):
    shape = msgspec.structs.replace(SMALL_AUTOENCODER, widths=(16, 32, 32, 64))
    frames = torch.zeros(17, 160, 240, 3, dtype=torch.uint8)
    module = CogVideoXClipEncoder(autoencoder(shape), temporal_stride=4).eval()
    export_graph(module, {"frames": frames}, path, outputs=["latents"])
    return cogvideox_encoder(shape, tuple(frames.shape[:3]), compressed=True, fusion="attention")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "exported",
    [
        partial(exported_transformer, ROTARY),
        partial(exported_transformer, COSMOS),
        exported_encoder,
    ],
    ids=["rotary", "cosmos", "encoder"],
)
def test_memory_that_onnx_runtime_takes(tmp_path, exported):
    path = tmp_path / "graph.onnx"
    cost = exported(path)
    assert cost.peak * 4 > 150e6
    needed = peak_bytes(path, runs=1, memory="no arena")
    assert 4 * (cost.weights + cost.peak) == pytest.approx(needed, rel=0.15)


def test_batches_need_the_memory_of_one_and_what_it_leaves():
    def peak(frames: int, *, compressed: bool) -> int:
        size = (frames, 480, 720)
        return cogvideox_encoder(
            load_card("cogvideox-2b").encoder, size, compressed=compressed, fusion="all"
        ).peak

    assert peak(25, compressed=True) < 1.7 * peak(9, compressed=True)
    assert peak(25, compressed=False) > 2.4 * peak(9, compressed=False)


def test_cogvideox_encodes_every_window_anew():
    card, setting = load_card("cogvideox-2b"), Setting(480, 720, 25, 4)
    windows, stream = (plan_run(card, setting, mode, question()) for mode in ("windows", "stream"))
    assert (windows.new_frames, stream.new_frames) == (24, 4)
    assert windows.parts["encoder"] == stream.parts["encoder"]


# The command


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("cogvideox-2b", [33750, 9450]),
        ("cogvideox-5b", [33750, 9450]),
        ("cosmos-predict2-2b", [88000, 24640]),
    ],
)
def test_the_plan(name, tokens):
    result = run(name, "--device", "orin-agx", "--json")
    assert result.exception is None, result.output
    comparisons = json.loads(result.stdout)["comparisons"]
    assert [comparison["tokens"] for comparison in comparisons] == tokens
    for comparison in comparisons:
        pipeline, kept = comparison["pipeline"], comparison["kept"]["parts"]
        assert set(pipeline) == {"text encoder", "encoder", "transformer", "decoder"}
        assert pipeline["encoder"] == kept["encoder"]
        assert comparison["transformer_ratio"] > 2
    assert comparisons[0]["transformer_ratio"] == pytest.approx(
        2 / transformer_share(load_card(name))
    )


def test_a_family_that_cannot_be_planned():
    card = load_card("cogvideox-2b")
    fields = {name: getattr(card.transformer, name) for name in Transformer.__struct_fields__}
    unknown = msgspec.structs.replace(card, transformer=Transformer(**fields))
    with pytest.raises(InputError, match="cogvideox-2b: plan does not know its family"):
        plan_run(unknown, card_setting(unknown), "card", question())
