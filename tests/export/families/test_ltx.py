"""LTX-Video: the pipeline's call, masked padding, frequencies, its encoder, its card, a bundle."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.models.transformers.transformer_ltx import LTXVideoRotaryPosEmbed
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from doubles.cards import CARD_BOTTOM
from doubles.pipelines import make_tokenizer, moving_clip, run_export
from doubles.small_families import STEP, SmallFamily, perturb, read_inside, relative_difference
from vditrack import Tracker
from vditrack.errors import InputError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.ltx.autoencoder import LtxStreamEncoder
from vditrack_export.families.ltx.shapes import LtxAutoencoder
from vditrack_export.families.ltx.transformer import LtxPath, ltx_channels, real_tokens
from vditrack_export.families.read_spec import Cut
from vditrack_export.pipeline.checkpoint import random_checkpoint
from vditrack_export.pipeline.empty_prompt import empty_prompt, random_prompt

TOLERANCE = 1e-5
# A width that six does not divide, as that of LTX-Video: two of its rotary pairs stand still.
LAYERS, HEADS, HEAD_DIM, LATENTS, TEXT_DIM = 3, 4, 16, 6, 12
"""Tokens of a prompt with its padding; no other size is the same."""


@pytest.fixture(scope="module", autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


SMALLEST_DECODER = {
    "decoder_block_out_channels": (8,),
    "decoder_layers_per_block": (1, 1),
    "decoder_spatio_temporal_scaling": (False,),
    "decoder_inject_noise": (False, False),
    "upsample_residual": (False,),
    "upsample_factor": (1,),
}


@cache
def autoencoder() -> AutoencoderKLLTXVideo:
    """With levels that widen and one that does not halve anything, as the released one has."""
    torch.manual_seed(1)
    vae = AutoencoderKLLTXVideo(
        latent_channels=LATENTS,
        block_out_channels=(8, 16, 24, 24),
        layers_per_block=(1, 2, 1, 1, 1),
        **SMALLEST_DECODER,
    )
    vae.latents_mean.copy_(torch.linspace(-0.3, 0.4, LATENTS))
    vae.latents_std.copy_(torch.linspace(0.5, 2.0, LATENTS))
    return perturb(vae, 0.05)


@cache
def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """As the checkpoint configures it."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


SMALL = SmallFamily("ltx")
GRID = (3, 4, 5)
REAL, PADDED = 5, 11
"""Tokens of a prompt that are no padding, and all of them."""


@cache
def prompt() -> Tensor:
    """Tokens and padding, all different, as the text encoder gives them."""
    return torch.randn(PADDED, TEXT_DIM, generator=torch.Generator().manual_seed(2))


def zero_padded() -> Tensor:
    """The same as the path takes it."""
    padded = prompt().clone()
    padded[REAL:] = 0
    return padded


@cache
def last_step() -> dict[str, Any]:
    """What the pipeline hands to a transformer in the last of 50 steps."""
    handed: list[dict[str, Any]] = []
    model = SMALL.model()
    hook = model.register_forward_pre_hook(
        lambda _module, _args, given: handed.append(given), with_kwargs=True
    )
    pipeline = LTXPipeline(scheduler(), autoencoder(), None, None, model)
    pipeline.set_progress_bar_config(disable=True)
    mask = torch.arange(PADDED) < REAL
    frames, rows, columns = GRID
    pipeline(
        height=32 * rows,
        width=32 * columns,
        num_frames=8 * frames - 7,
        num_inference_steps=50,
        guidance_scale=1.0,
        prompt_embeds=prompt()[None],
        prompt_attention_mask=mask[None],
        output_type="latent",
    )
    hook.remove()
    assert len(handed) == 50
    return handed[-1]


def test_the_whole_model_as_the_pipeline_calls_it() -> None:
    """Behind a prompt whose masked padding is anything in the model, and left out in the path."""
    model = SMALL.model()
    clean = torch.randn(1, LATENTS, *GRID, generator=torch.Generator().manual_seed(1))
    packed = LTXPipeline._pack_latents(STEP.noised(clean))
    # The scheduler's own timestep is 100 but for rounding, which the sines of it would show.
    handed = last_step() | {
        "hidden_states": packed,
        "timestep": torch.tensor([STEP.timestep]),
    }
    inside = read_inside(
        model.transformer_blocks,
        lambda: model(**handed),
        heads=HEADS,
        tokens=3 * 4 * 5,
        text_first=False,
    )
    for (tensor, rotated), blocks in inside.items():
        for block, read in enumerate(blocks):
            cut = Cut(block, tuple(range(HEADS)), tuple(range(HEAD_DIM)), 3, tensor, rotated)
            path = LtxPath(model, (LATENTS, *GRID), cut, STEP, zero_padded()).eval()
            assert relative_difference(path(clean).flatten(0, 2), read.flatten(1)) <= TOLERANCE


def test_the_prompts_padding_is_zero_but_its_first_token_is_no_padding() -> None:
    assert real_tokens(zero_padded()).tolist() == [True] * 5 + [False] * 6
    assert real_tokens(torch.zeros(3, TEXT_DIM)).tolist() == [True, False, False]


# Frequencies


@cache
def true_frequencies() -> Tensor:
    """Of LTX-Video's 32 heads of 64: [axes, heads, channels], radians a unit of its positions."""
    rotary, step = LTXVideoRotaryPosEmbed(dim=2048), 2.0**-16
    # At the middle of every axis all angles are 0; each of three tokens lies a step off on one.
    units = torch.tensor([20.0, 2048.0, 2048.0])
    places = units[:, None] * (0.5 + step * torch.eye(3))
    cos, sin = rotary(torch.empty(1), video_coords=places[None])
    return (torch.atan2(sin, cos)[0] / step).reshape(3, 32, 64)


def test_rotary_pairs_are_neighbours_and_of_one_axis() -> None:
    frequencies = true_frequencies()
    assert torch.equal(frequencies[..., ::2], frequencies[..., 1::2])
    turning = (frequencies > 0).sum(0).flatten()
    assert turning[:2].tolist() == [0, 0]
    assert turning[2:].unique().tolist() == [1]


@pytest.mark.parametrize("low", [0.0, 0.1, 0.15, 0.4, 0.9])
def test_kept_channels_have_the_lowest_frequencies_of_their_head(low: float) -> None:
    frequencies, kept = true_frequencies(), ltx_channels(64, (low, 1.0))
    dropped = sorted(set(range(64)) - set(kept))
    assert len(dropped) == 2 * int(low * 32)
    assert {channel ^ 1 for channel in kept} == set(kept)
    for head in range(32):
        for axis in range(3):
            outside = frequencies[axis, head, dropped]
            inside = frequencies[axis, head, kept]
            outside, inside = outside[outside > 0], inside[inside > 0]
            assert abs(len(outside) - low * (len(outside) + len(inside))) < 4
            assert not len(outside) or inside.max() < outside.min()


def test_ranges_that_meet_share_the_channels() -> None:
    for middle in np.linspace(0.1, 0.9, 17):
        parts = [ltx_channels(64, ends) for ends in ((0.0, middle), (middle, 1.0))]
        assert sorted(parts[0] + parts[1]) == list(range(64))
    with pytest.raises(InputError, match="keeps no channel"):
        ltx_channels(64, (0.0, 0.02))


def test_higher_heads_turn_faster() -> None:
    """What the card's comment says of heads."""
    highest = true_frequencies().amax((0, 2))
    assert (highest.diff() > 0).all()


# The encoder


@cache
def frames(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 64, 96, 3), dtype=torch.uint8, generator=generator)


@cache
def pipelines_latents(count: int) -> Tensor:
    """Of pictures as a pipeline prepares and normalises them."""
    vae = autoencoder()
    pictures = [Image.fromarray(frame.numpy()) for frame in frames(count)]
    prepared = VideoProcessor(vae_scale_factor=32).preprocess_video(pictures)
    mode = vae.encode(prepared).latent_dist.mode()
    return LTXPipeline._normalize_latents(
        mode, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    )


@pytest.mark.parametrize("groups", [(1,), (1, 8), (25,), (1, 8, 8, 8), (9, 16)])
def test_groups_give_the_latents_of_the_clip(groups: tuple[int, ...]) -> None:
    encoder, latent, caches = LtxStreamEncoder(autoencoder()).eval(), [], []
    for group in frames(sum(groups)).split(list(groups)):
        encoded, *caches = encoder(group, *caches)
        latent.append(encoded)
    expected = pipelines_latents(sum(groups))
    assert expected.shape == (1, LATENTS, 1 + sum(groups) // 8, 2, 3)
    assert relative_difference(torch.cat(latent, dim=2), expected) <= TOLERANCE


@pytest.mark.parametrize(("count", "carried"), [(8, False), (2, False), (9, True), (1, True)])
def test_frames_that_make_no_whole_latents_are_refused(count: int, carried: bool) -> None:
    encoder = LtxStreamEncoder(autoencoder())
    caches = encoder(frames(1))[1:] if carried else []
    with pytest.raises(InputError, match="8 more are one more latent"):
        encoder(frames(9)[:count], *caches)


# The card


def test_the_cards_step_is_the_schedulers_last() -> None:
    card, steps = load_card("ltx-video"), scheduler()
    rows, columns = card.input.height // 32, card.input.width // 32
    shift = calculate_shift(card.input.latents * rows * columns, 1024, 4096, 0.95, 2.05)
    steps.set_timesteps(sigmas=np.linspace(1.0, 1 / 50, 50), mu=shift)
    feature = card.feature
    assert feature.timestep == pytest.approx(float(steps.timesteps[49]), rel=1e-6)
    assert feature.noise_level == pytest.approx(float(steps.sigmas[49]), rel=1e-6)
    assert feature.signal_level == pytest.approx(1 - feature.noise_level)
    # Whatever the size: the pipeline's call on a small one ends there too.
    assert float(last_step()["timestep"]) == pytest.approx(feature.timestep, rel=1e-6)


def test_the_cards_shapes_are_the_models() -> None:
    """diffusers converts LTX-Video's weights into models of its classes' defaults."""
    card = load_card("ltx-video")
    assert isinstance(card.encoder, LtxAutoencoder)
    with torch.device("meta"):
        model, vae = LTXVideoTransformer3DModel(), AutoencoderKLLTXVideo()
    for config, described in (
        (model.config, card.family.denoiser.config()),
        (vae.config, card.family.encoder.config()),
    ):
        assert {name: _plain(config[name]) for name in described} == described
    wide = model.transformer_blocks[0].ff.net[2].in_features
    assert card.transformer.feed_forward == wide
    # arXiv 2501.00103: 1.9 billion parameters.
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 1) == 1.9
    assert card.encoder.stride == vae.spatial_compression_ratio
    assert card.encoder.temporal_stride == vae.temporal_compression_ratio


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


CARD = """
name = "small"
checkpoint = "random numbers"
licence = "Apache-2.0"
notes = "for tests"
[input]
height = 64
width = 96
frames = 17
described_frames = 17
temporal_stride = 8
[transformer]
family = "ltx"
layers = 3
heads = 4
head_dim = 16
feed_forward = 256
in_channels = 6
out_channels = 6
patch = [1, 1, 1]
text_dim = 12
text_tokens = 7
[encoder]
kind = "ltx_autoencoder"
image_channels = 3
patch = 4
widths = [8, 16, 24, 24]
downsample = [true, true, true, false]
residual_blocks = [1, 2, 1, 1, 1]
latent_channels = 6
[text_encoder]
kind = "t5"
layers = 1
width = 12
heads = 2
head_dim = 6
feed_forward = 32
gated = false
vocabulary = 10
"""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(CARD + CARD_BOTTOM)
    return file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ltx")
    SMALL.model().save_pretrained(folder / "transformer", max_shard_size="100KB")
    autoencoder().save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder")
    make_tokenizer().save_pretrained(folder / "tokenizer")
    return folder


def text_encoder() -> T5EncoderModel:
    shape = {"vocab_size": 10, "d_model": TEXT_DIM, "d_kv": 6, "d_ff": 32}
    torch.manual_seed(0)
    return T5EncoderModel(T5Config(**shape, num_layers=1, num_heads=2)).eval()


def bundle_latents(bundle: Path) -> Tensor:
    """Of 25 frames: the first by a graph of its own, then eight at a time with what is carried."""
    step = OnnxRuntimeSession(bundle / "encoder.onnx")
    left = OnnxRuntimeSession(bundle / "encoder_start.onnx").run({"frames": frames(25)[:1].numpy()})
    found = [left.pop("latents")]
    for group in frames(25)[1:].split(8):
        carried = {name.removeprefix("next_"): value for name, value in left.items()}
        left = step.run({"frames": group.numpy(), **carried})
        found.append(left.pop("latents"))
    return torch.from_numpy(np.concatenate(found, axis=2))


@pytest.mark.slow
def test_a_bundle_that_tracks(card: Path, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    done = run_export(card, "--weights", checkpoint, "-o", output, "--json")
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert told["parity"]["encoder_vs_original"] <= 1e-4
    assert told["parity"]["features_vs_full_model"] <= TOLERANCE
    assert told["encoder"]["frames"] == 8
    assert "encoder_start.onnx" in told["files"]
    assert told["output"]["stride"] == 32
    assert relative_difference(bundle_latents(output), pipelines_latents(25)) <= TOLERANCE
    tracker = Tracker.load(output)
    tracks = tracker.track(moving_clip(11), [[0, 40, 30], [3, 60, 40]])
    assert tracks.points.shape == (2, 11, 2)
    assert np.isfinite(tracks.points).all()
    stream = tracker.stream()
    for stamp, frame in enumerate(moving_clip(11)):
        update = stream.push(frame, float(stamp))
        if stamp == 0:
            stream.add([[40.0, 30.0]])
    assert np.isfinite(update.points).all()


def test_random_weights_need_no_checkpoint(card: Path) -> None:
    read = load_card(str(card))
    made, text = random_checkpoint(read), random_prompt(read)
    encoded, *_ = LtxStreamEncoder(made.encoder)(frames(17))
    assert (
        relative_difference(
            encoded, read.family.encoder.original_latents(made.encoder, frames(17), 8)
        )
        <= TOLERANCE
    )
    cut = Cut(1, (1,), tuple(range(HEAD_DIM)), 3)
    found = LtxPath(made.transformer, tuple(encoded.shape[1:]), cut, STEP, text)(encoded)
    whole = read.family.denoiser.read_whole(made.transformer, cut, STEP, encoded, text)
    assert relative_difference(found.flatten(0, 2), whole) <= TOLERANCE


def test_the_empty_prompt_is_the_pipelines(card: Path, checkpoint: Path) -> None:
    """Padding is masked in the transformer alone: the text encoder sees it."""
    encoder = T5EncoderModel.from_pretrained(checkpoint / "text_encoder", dtype=torch.bfloat16)
    pipeline = LTXPipeline(scheduler(), autoencoder(), encoder, make_tokenizer(), SMALL.model())
    embedding, mask = pipeline._get_t5_prompt_embeds("", max_sequence_length=7)
    found = empty_prompt(load_card(str(card)), Weights(checkpoint))
    assert torch.equal(real_tokens(found), mask[0])
    assert torch.equal(found[mask[0]], embedding[mask].float())
    assert found[~mask[0]].abs().max() == 0
    alone = encoder(make_tokenizer()("", return_tensors="pt").input_ids)[0]
    assert relative_difference(alone[0].float(), found[:1]) > 1e-2


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "temporal_stride = 8",
            "temporal_stride = 1",
            "temporal_stride 1 is not one of the encoder's: give 8",
        ),
        (
            "temporal_stride = 8",
            "temporal_stride = 4",
            "temporal_stride 4 is not one of the encoder's: give 8",
        ),
        ("patch = 4", "patch = 2", "latents of 32 pixels and 8 frames"),
        ("[true, true, true, false]", "[true, true, true]", "as many entries as widths"),
        ("patch = [1, 1, 1]", "patch = [1, 2, 2]", "patch"),
    ],
)
def test_cards_that_fit_no_ltx_video_are_refused(
    card: Path, old: str, new: str, complaint: str
) -> None:
    text = card.read_text()
    assert text.count(old) == 1
    card.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=complaint):
        load_card(str(card))


def test_a_later_versions_autoencoder_is_refused(
    card: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = checkpoint / "vae" / "config.json"
    content = config.read_text()
    later = json.loads(content) | {"down_block_types": ["LTXVideo095DownBlock3D"] * 4}
    config.write_text(json.dumps(later))
    done = run_export(card, "--weights", checkpoint, "-o", tmp_path / "bundle")
    config.write_text(content)
    assert isinstance(done.exception, InputError), done.exception
    assert "has down_block_types ['LTXVideo095" in str(done.exception)
