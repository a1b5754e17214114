"""Recordings on the meta device, against torch's own counter while real modules run."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from doubles.flops import count_operations, count_weights
from doubles.small_cards import SMALL_CARDS, make_small_card
from vditrack_export.card import Card
from vditrack_export.families.layers import Attend
from vditrack_export.pipeline.checkpoint import random_checkpoint
from vditrack_export.plan.lowering import lower
from vditrack_export.plan.meta_tensors import meta_tensor
from vditrack_export.plan.networks import (
    build_feature_path,
    build_text_encoder,
    build_transformer,
    feature_graph,
    make_prompt,
    record_decoder,
    record_feature_path,
    record_text_encoder,
    record_transformer,
)
from vditrack_export.plan.pipeline import reference_operations, transformer_share
from vditrack_export.plan.recorder import StateBytes, record
from vditrack_export.plan.settings import card_setting, latent_size

# The cards of single pictures have windows of one frame, and that of LTX-Video a stride of 8.
WINDOWS = [
    (name, frames, stride)
    for name in SMALL_CARDS
    for frames, stride in {
        "ltx-video": [(9, 8), (17, 8)],
        "wan2.2-ti2v-5b": [(5, 4), (13, 4)],
        "adm-imagenet-256": [(1, 1)],
        "stable-diffusion-2.1": [(1, 1)],
        "i2vgen-xl": [(4, 1)],
        "stable-video-diffusion": [(4, 1)],
        "tiny": [(2, 1), (4, 1)],
    }.get(name, [(3, 1), (9, 4), (25, 4)])
]
windows = pytest.mark.parametrize(("name", "frames", "stride"), WINDOWS)
# These cards have the autoencoders of Wan2.1 and of CogVideoX-2B.
SAME_AUTOENCODER = ("skyreels-v2-df-1.3b", "cosmos-predict2-2b", "cogvideox-5b")
autoencoder_windows = pytest.mark.parametrize(
    ("name", "frames", "stride"), [row for row in WINDOWS if row[0] not in SAME_AUTOENCODER]
)


def random_latents(card: Card) -> torch.Tensor:
    size = latent_size(card, card_setting(card))
    return torch.randn(1, card.encoder.latent_channels, *size)


@windows
def test_feature_path(name, frames, stride):
    card = make_small_card(name, frames=frames, temporal_stride=stride)
    latents, prompt = random_latents(card), make_prompt(card)
    size = tuple(latents.shape[2:])
    for described in {1, size[0]}:
        transformer = random_checkpoint(card).transformer
        path = build_feature_path(card, transformer, size, described, prompt)
        operations = count_operations(lambda path=path: path(latents))
        recording = record_feature_path(card, size, described)
        assert recording.operations == operations
        held = count_weights(path) + sum(x.numel() for x in path.buffers() if x.is_floating_point())
        # Nothing else is read; a norm before what turned out constant is not.
        assert 0.98 * held <= recording.weights <= held
        with torch.no_grad():
            assert recording.results[0].shape == path(latents).shape


@pytest.mark.parametrize(
    ("name", "attention", "chunk"),
    [("wan2.1-causal-1.3b", "causal", 2), ("cosmos-predict2-2b", "cached", 1)],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_with_cached_keys(name, attention, chunk, precision):
    """Keys and values of two whole blocks: of four older latents in rings, of a chunk in slots."""
    card = make_small_card(
        name, frames=1 + 4 * (3 + chunk), temporal_stride=4, attention=attention, chunk=chunk
    )
    size = latent_size(card, card_setting(card))
    transformer, prompt = random_checkpoint(card).transformer, make_prompt(card)
    graph = feature_graph(
        build_feature_path(card, transformer, size, chunk, prompt), torch.empty(0)
    )
    inputs = [x.contiguous() for x in graph.examples.values()]
    recording = record_feature_path(card, size, chunk, precision)
    assert recording.operations == count_operations(lambda: graph.module(*inputs))
    item, cells, width = (4 if precision == "fp32" else 2), 4 * 6, 64
    latent = 2 * 2 * cells * width * item
    assert recording.state == StateBytes(taken=4 * latent, replaced=0, slots=chunk * latent)
    cost = lower(recording, "all")
    assert (cost.ring_bytes, cost.slot_bytes) == (4 * latent, chunk * latent)
    assert cost.input_bytes == 4 * (4 * chunk * 8 * 12 + 4)
    channels = len(card.feature.heads) * len(card.family.denoiser.channels(card.feature))
    assert cost.output_bytes == 4 * chunk * cells * channels


@windows
def test_whole_transformer(name, frames, stride):
    card = make_small_card(name, frames=frames, temporal_stride=stride)
    latents = random_latents(card)
    run, prompt = build_transformer(card), make_prompt(card)
    recording = record_transformer(card, tuple(latents.shape[2:]))
    assert recording.operations == count_operations(lambda: run(latents, prompt))


@autoencoder_windows
def test_encoder(name, frames, stride):
    """Graphs that take a window's frames in turns do what the whole encoder does."""
    card = make_small_card(name, frames=frames, temporal_stride=stride)
    setting = card_setting(card)
    encoder = random_checkpoint(card).encoder
    clip = torch.zeros(frames, setting.height, setting.width, 3, dtype=torch.uint8)
    if name == "hunyuan-video":
        # Convolutions of single frames are folded over time, and attention is not masked.
        graph = card.family.encoder.form(encoder, card.input).graphs[-1].module
        groups = [clip] if stride > 1 else clip.split(1)
        operations = sum(count_operations(lambda x=x: graph(x)) for x in groups)
    else:
        operations = count_operations(
            lambda: card.family.encoder.original_latents(encoder, clip, stride)
        )
    assert reference_operations(card, setting)["encoder"] == operations


@pytest.mark.slow
@autoencoder_windows
def test_decoder(name, frames, stride):
    card = make_small_card(name, frames=frames, temporal_stride=stride)
    latents = random_latents(card)
    decode = card.family.encoder.build_decoder(stride)
    recording = record_decoder(card, tuple(latents.shape[2:]), stride)
    if decode is None:
        assert recording is None and name in ("tiny", "adm-imagenet-256")
        return
    with torch.no_grad():
        decoded = decode(latents).shape
    # Frames are side by side in a clip [1, 3, T, H, W], or pictures [T, 3, H, W].
    assert frames in (decoded[0], decoded[2])
    assert recording.operations == count_operations(lambda: decode(latents))


@pytest.mark.parametrize("name", SMALL_CARDS)
def test_text_encoder(name):
    frames, stride = next((frames, stride) for key, frames, stride in WINDOWS if key == name)
    card = make_small_card(name, frames=frames, temporal_stride=stride)
    model = build_text_encoder(card)
    recording = record_text_encoder(card)
    if model is None:
        assert recording is None
        return
    tokens = torch.zeros(1, card.transformer.text_tokens, dtype=torch.long)
    assert recording.operations == count_operations(lambda: model(tokens))
    assert recording.weights == count_weights(model)


def test_parts_of_the_pipeline():
    """Guidance runs text encoder and transformer twice, if the pipeline has any."""
    for name, passes in (("cogvideox-5b", 2), ("hunyuan-video", 1), ("tiny", 1), ("i2vgen-xl", 2)):
        card = make_small_card(name, frames=3)
        setting = card_setting(card)
        parts = reference_operations(card, setting)
        once = record_transformer(card, latent_size(card, setting)).operations
        assert parts["transformer"] == passes * once
        assert ("text encoder" in parts) == (passes == 2)
        assert ("decoder" in parts) == (name != "tiny")
        path = record_feature_path(card, latent_size(card, setting), 3)
        assert transformer_share(card) == path.operations / once


@pytest.mark.parametrize("in_module", [True, False])
def test_attention_fused_or_not(in_module):
    """Tokens x tokens a head is stored only where attention is two products around a softmax."""
    query, key, value = (meta_tensor(1, 50, 4, 8) for _ in range(3))
    attend = Attend()

    def run() -> torch.Tensor:
        if in_module:
            return attend(query, key, value)
        heads = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)

    recording = record(run, [query, key, value], attend)
    one, scores = 4 * 50 * 32, 4 * 4 * 50 * 50
    fused, graph, decomposed = (lower(recording, x) for x in ("all", "attention", "none"))
    assert {cost.fp32 for cost in (fused, graph, decomposed)} == {2 * 2 * 50 * 50 * 32}
    # What is fused reads three inputs and writes the output, which lie elsewhere.
    assert (fused.peak_bytes, fused.moved_bytes) == (0, 4 * one)
    assert (fused.input_bytes, fused.output_bytes) == (3 * one, one)
    # Each head's queries, keys and values are put side by side first.
    assert decomposed.peak_bytes >= 3 * one + scores
    assert decomposed.moved_bytes == 4 * one + 2 * scores
    if in_module:
        # The kernel makes its own copies of queries, keys and values.
        assert (graph.peak_bytes, graph.moved_bytes) == (7 * one, 4 * one)
    else:
        assert graph == decomposed


def test_elementwise_operations_need_no_memory_of_their_own_when_fused():
    linear, x = nn.Linear(32, 32, device="meta"), meta_tensor(1, 50, 32)
    recording = record(lambda: x + F.gelu(linear(x)) * 2, [x])
    one = 4 * 50 * 32
    assert lower(recording, "all").peak_bytes == one
    # ONNX Runtime's GELU writes another array than it reads; input and output are counted.
    assert lower(recording, "attention").peak_bytes == 3 * one


def test_numbers_that_code_looks_at_are_there():
    """Weights are on the meta device, and which tokens are equal is still known."""
    weight, tokens = meta_tensor(8, 4), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])

    def run() -> torch.Tensor:
        distinct = tokens.unique(dim=0)
        assert len(distinct) == 2
        return F.linear(distinct, weight)

    recording = record(run, [])
    assert recording.results[0].shape == (2, 8)
    assert recording.operations == 2 * 2 * 4 * 8
    assert recording.weights == 8 * 4 + 3 * 4
