"""HunyuanVideo: masked padding, guidance, rotary axes, its encoder, pipeline, card and bundle."""

import inspect
import json
import math
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from diffusers.video_processor import VideoProcessor
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from doubles.cards import make_card
from doubles.pipelines import moving_clip, run_export
from doubles.small_families import SmallFamily, perturb, read_inside, relative_difference
from vditrack import InputError, Tracker, VditrackError
from vditrack_export.card import load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.hunyuan.autoencoder import (
    HunyuanVideoClipEncoder,
    HunyuanVideoFrameEncoder,
)
from vditrack_export.families.hunyuan.transformer import (
    PIPELINE_GUIDANCE,
    HunyuanPrompt,
    HunyuanVideoPath,
    hunyuan_rotary_axes,
)
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, TensorName, seeded_noise
from vditrack_export.families.rotary import low_frequency_channels
from vditrack_export.pipeline.empty_prompt import empty_prompt
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR

LAYERS, HEADS, HEAD_DIM, TEXT_TOKENS, TEXT_DIM, POOLED = 3, 3, 16, 6, 12, 8
# Last of 50 steps: see test_last_step_is_the_pipelines.
DENOISING = Denoising(timestep=125.0, signal=0.875, noise=0.125, seed=3)
EVERY_CHANNEL = tuple(range(HEAD_DIM))


SMALL = SmallFamily("hunyuan_video")


@cache
def encoded_prompt() -> tuple[Tensor, Tensor]:
    """As text encoders give it: their padding is anything but zero."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(TEXT_TOKENS, TEXT_DIM, generator=generator)
    return tokens, torch.randn(POOLED, generator=generator)


def whole_model(
    cut: Cut, shape: LatentShape, real: int = 3, guidance: float = PIPELINE_GUIDANCE
) -> Tensor:
    """What the unmodified model computes behind a prompt whose padding is masked."""
    model, (tokens, pooled) = SMALL.model(), encoded_prompt()
    _, frames, rows, columns = shape
    grid = (frames, rows // 2, columns // 2)
    inside = read_inside(
        model.transformer_blocks,
        lambda: model(
            DENOISING.noised(latents(shape)),
            torch.tensor([DENOISING.timestep]),
            tokens[None],
            (torch.arange(TEXT_TOKENS) < real)[None],
            pooled[None],
            torch.tensor([guidance]),
        ),
        heads=HEADS,
        tokens=math.prod(grid),
        text_first=False,
    )
    read = inside[cut.tensor, cut.rotated][cut.block]
    return read.flatten(1).unflatten(0, grid)[-cut.described :]


@cache
def latents(shape: LatentShape) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


def descriptors(
    cut: Cut, shape: LatentShape, real: int = 3, guidance: float = PIPELINE_GUIDANCE
) -> Tensor:
    tokens, pooled = encoded_prompt()
    padded = F.pad(tokens[:real], (0, 0, 0, TEXT_TOKENS - real))
    prompt = HunyuanPrompt(padded, pooled).packed()
    path = HunyuanVideoPath(SMALL.model(), shape, cut, DENOISING, prompt, guidance).eval()
    with torch.no_grad():
        return path(latents(shape))


def every(block: int, tensor: TensorName = "keys", described: int = 2) -> Cut:
    return Cut(block, (0, 1, 2), EVERY_CHANNEL, described, tensor)


@pytest.mark.parametrize("real", [1, 2, TEXT_TOKENS])
def test_padding_changes_nothing(real: int) -> None:
    """The whole model sees it and masks it; the path leaves it out."""
    for tensor in ("keys", "hidden"):
        found = descriptors(every(2, tensor), SMALL.latent_shape, real)
        expected = whole_model(every(2, tensor), SMALL.latent_shape, real)
        assert relative_difference(found, expected) <= MAX_RELATIVE_ERROR


def test_prompt_of_nothing_but_padding() -> None:
    with pytest.raises(InputError, match="nothing but padding"):
        descriptors(every(0), SMALL.latent_shape, real=0)


def test_guidance_is_the_pipelines() -> None:
    cut, shape = every(1), SMALL.latent_shape
    weak = whole_model(cut, shape, guidance=1000.0)
    assert relative_difference(descriptors(cut, shape), weak) > 100 * MAX_RELATIVE_ERROR
    assert relative_difference(descriptors(cut, shape, guidance=1000.0), weak) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("shape", [(4, 2, 8, 10), (4, 1, 12, 6), (4, 5, 6, 16)], ids=str)
def test_windows_of_other_shapes(shape: LatentShape) -> None:
    cut = every(1, described=1)
    assert (
        relative_difference(descriptors(cut, shape), whole_model(cut, shape)) <= MAX_RELATIVE_ERROR
    )


def test_rotation_turns_the_channels_of_each_axis() -> None:
    """From the first cell to the next in one axis, only the channels of that axis turn."""
    axes = hunyuan_rotary_axes(128)
    assert axes == (16, 56, 56)
    model = HunyuanVideoTransformer3DModel(num_layers=0, num_single_layers=0, num_refiner_layers=0)
    cos, _ = model.rope(torch.empty(1, 16, 2, 4, 4))
    cos = cos.unflatten(0, (2, 2, 2))
    kept = low_frequency_channels(axes, (0.0, 1.0))
    assert kept == list(range(128))
    neighbours = (cos[1, 0, 0], cos[0, 1, 0], cos[0, 0, 1])
    for axis, channels in zip(neighbours, torch.arange(128).split(axes), strict=True):
        turned = (axis != 1).nonzero().flatten()
        assert turned.tolist() == channels.tolist()
        # Frequencies fall along an axis, so the last channels turn least.
        assert (axis[channels].diff() >= 0).all()


VAE = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}


@cache
def autoencoder(**changes: Any) -> AutoencoderKLHunyuanVideo:
    torch.manual_seed(0)
    return perturb(
        AutoencoderKLHunyuanVideo(**VAE, latent_channels=4, layers_per_block=1, **changes)
    )


@cache
def frames(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 32, 48, 3), dtype=torch.uint8, generator=generator)


def original(clip: Tensor) -> Tensor:
    """Latents by the unmodified autoencoder, of pictures as pipelines prepare them."""
    pictures = [Image.fromarray(frame.numpy()) for frame in clip]
    prepared = VideoProcessor(vae_scale_factor=8).preprocess_video(pictures)
    with torch.no_grad():
        mode = autoencoder().encode(prepared).latent_dist.mode()
    return mode * autoencoder().config.scaling_factor


@pytest.mark.parametrize("count", [1, 5, 13, 17, 21, 29, 41])
def test_latents_of_a_clip(count: int) -> None:
    """Clips of more than 16 frames are encoded in pieces by diffusers too."""
    with torch.no_grad():
        found = HunyuanVideoClipEncoder(autoencoder())(frames(count))
    assert found.shape == (1, 4, 1 + count // 4, 4, 6)
    assert relative_difference(found, original(frames(count))) <= MAX_RELATIVE_ERROR


def test_latents_of_frames_alone() -> None:
    expected = torch.cat([original(frame[None]) for frame in frames(5)], dim=2)
    with torch.no_grad():
        found = HunyuanVideoFrameEncoder(autoencoder())(frames(5))
    assert relative_difference(found, expected) <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("kind", [HunyuanVideoClipEncoder, HunyuanVideoFrameEncoder])
def test_encoder_refuses_what_it_does_not_know(kind: type) -> None:
    with pytest.raises(InputError, match="no attention"):
        kind(autoencoder(mid_block_add_attention=False))
    wide = autoencoder()
    strange = torch.nn.Module()
    strange.config = type(wide.config)(wide.config | {"temporal_compression_ratio": 8})
    with pytest.raises(InputError, match="a latent every 8 frames"):
        kind(strange)


@pytest.mark.parametrize(("since", "earliest"), [(16, 0), (17, 5), (28, 5)])
def test_clip_encoder_looks_ahead_within_a_piece(since: int, earliest: int) -> None:
    """Through the norms; so a window is encoded whole."""
    changed = frames(29).clone()
    changed[since:] = 255 - changed[since:]
    encoder = HunyuanVideoClipEncoder(autoencoder())
    with torch.no_grad():
        moved = (encoder(changed) - encoder(frames(29))).abs().amax((0, 1, 3, 4))
    assert moved.nonzero().flatten().tolist() == list(range(earliest, 8))


LAST = 49


@cache
def last_step() -> tuple[dict[str, Any], Tensor, Tensor]:
    """What the pipeline gives the transformer in its last step, the latents there and sigma."""
    seen: list[dict[str, Any]] = []
    model = SMALL.model()
    hook = model.register_forward_pre_hook(
        lambda _, args, given: seen.append(given), with_kwargs=True
    )
    pipeline = HunyuanVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=model,
        vae=autoencoder(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
    pipeline.set_progress_bar_config(disable=True)
    clean = latents((4, 2, 4, 4))
    noise = seeded_noise(clean.shape, DENOISING.seed)

    def replaced(_: object, index: int, *_rest: object) -> dict[str, Tensor]:
        """As if the steps before had led to the clip that is tracked."""
        now = pipeline.scheduler.timesteps[LAST:]
        mixed = pipeline.scheduler.scale_noise(clean, now, noise)
        return {"latents": mixed} if index == LAST - 1 else {}

    tokens, pooled = encoded_prompt()
    pipeline(
        prompt_embeds=tokens[None],
        pooled_prompt_embeds=pooled[None],
        prompt_attention_mask=torch.ones(1, TEXT_TOKENS),
        height=32,
        width=32,
        num_frames=5,
        output_type="latent",
        callback_on_step_end=replaced,
    )
    hook.remove()
    return seen[LAST], clean, pipeline.scheduler.sigmas[LAST]


def test_last_step_is_the_pipelines() -> None:
    given, clean, sigma = last_step()
    feature = load_card("hunyuan-video").feature
    assert float(sigma) == feature.noise_level == DENOISING.noise
    assert given["timestep"].tolist() == [feature.timestep] == [DENOISING.timestep]
    assert feature.signal_level == DENOISING.signal
    assert given["guidance"].tolist() == [PIPELINE_GUIDANCE]
    noised = DENOISING.noised(clean)
    assert torch.allclose(given["hidden_states"], noised, rtol=0, atol=1e-6)


def _defaults(kind: type) -> dict[str, Any]:
    """Of a diffusers class: those of HunyuanVideo, as it was released."""
    return {
        name: list(given.default) if isinstance(given.default, tuple) else given.default
        for name, given in inspect.signature(kind).parameters.items()
    }


def test_card_is_the_released_model() -> None:
    card = load_card("hunyuan-video")
    shapes = card.family.denoiser.config()
    known = _defaults(HunyuanVideoTransformer3DModel)
    assert shapes == {name: known[name] for name in shapes}
    assert set(known) - set(shapes) == {"guidance_embeds", "rope_theta", "image_condition_type"}
    encoder = card.family.encoder.config()
    known = _defaults(AutoencoderKLHunyuanVideo)
    assert encoder == {name: known[name] for name in encoder}
    assert card.encoder.stride == known["spatial_compression_ratio"]
    assert "excludes the European Union" in card.notes


STEP_OF_CARD = {"signal_level": 0.875, "noise_level": 0.125, "timestep": 125.0}
MODEL = """
[transformer]
family = "hunyuan_video"
layers = 3
single_layers = 2
refiner_layers = 1
heads = 2
head_dim = 16
feed_forward = 64
in_channels = 4
out_channels = 4
patch = [1, 2, 2]
text_dim = 16
text_tokens = 9
pooled_dim = 8
[encoder]
kind = "hunyuan_video_autoencoder"
image_channels = 3
widths = [32, 32, 32, 32]
residual_blocks = 1
temporal_stride = 4
latent_channels = 4
[text_encoder]
kind = "llama"
layers = 3
width = 16
heads = 2
head_dim = 8
feed_forward = 32
vocabulary = 200
"""


def tokenizer(text: str, start: str, end: str) -> PreTrainedTokenizerFast:
    """One token for each word of a text, between a first and a last one."""
    split = pre_tokenizers.Whitespace()
    vocabulary = [start, end, "<unk>", *(word for word, _ in split.pre_tokenize_str(text))]
    every = {word: number for number, word in enumerate(dict.fromkeys(vocabulary))}
    words = Tokenizer(models.WordLevel(every, unk_token="<unk>"))
    words.pre_tokenizer = split
    words.post_processor = processors.TemplateProcessing(
        f"{start} $A {end}" if end else f"{start} $A",
        special_tokens=[(token, every[token]) for token in (start, end) if token],
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=end or start, eos_token=end)


def save_pipeline(folder: Path) -> Path:
    torch.manual_seed(0)
    HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,
        num_single_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 6, 6),
    ).save_pretrained(folder / "transformer", max_shard_size="100KB")
    AutoencoderKLHunyuanVideo(
        block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4
    ).save_pretrained(folder / "vae")
    shape = {"num_attention_heads": 2, "vocab_size": 200, "intermediate_size": 32}
    llama = LlamaConfig(**shape, hidden_size=16, num_hidden_layers=3, num_key_value_heads=1)
    perturb(LlamaModel(llama)).save_pretrained(folder / "text_encoder")
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    clip = CLIPTextConfig(**shape, **ends, hidden_size=8, num_hidden_layers=2)
    perturb(CLIPTextModel(clip)).save_pretrained(folder / "text_encoder_2")
    template = DEFAULT_PROMPT_TEMPLATE["template"]
    tokenizer(template, "<start>", "").save_pretrained(folder / "tokenizer")
    tokenizer("", "<start>", "<end>").save_pretrained(folder / "tokenizer_2")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("hunyuan"))


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(make_card(MODEL, height=32, width=48, **STEP_OF_CARD))
    return path


def test_empty_prompt_is_the_pipelines(card: Path, checkpoint: Path, tmp_path: Path) -> None:
    kept = tmp_path / "prompt.safetensors"
    found = empty_prompt(load_card(str(card)), Weights(checkpoint, prompt=kept))
    encoders = [
        kind.from_pretrained(checkpoint / name, dtype=torch.bfloat16)
        for kind, name in ((LlamaModel, "text_encoder"), (CLIPTextModel, "text_encoder_2"))
    ]
    tokenizers = [
        PreTrainedTokenizerFast.from_pretrained(checkpoint / name)
        for name in ("tokenizer", "tokenizer_2")
    ]
    pipeline = HunyuanVideoPipeline(
        text_encoder=encoders[0],
        tokenizer=tokenizers[0],
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1],
        transformer=SMALL.model(),
        vae=autoencoder(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
    with torch.no_grad():
        (tokens,), (pooled,), (mask,) = pipeline.encode_prompt("", max_sequence_length=9)
    assert 1 < mask.sum() < 9
    # The pipeline pads first: in half precision, sums may come in another order.
    assert torch.equal(found[1:].any(dim=1), mask.bool())
    assert relative_difference(found[1:], (tokens * mask[:, None]).float()) <= 2e-2
    assert relative_difference(found[0, :8], pooled.float()) <= 2e-2
    assert not found[0, 8:].any()
    assert torch.equal(
        empty_prompt(load_card(str(card)), Weights(tmp_path / "none", prompt=kept)), found
    )


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 4])
def test_a_bundle_that_tracks(card: Path, checkpoint: Path, tmp_path: Path, stride: int) -> None:
    output = tmp_path / "bundle"
    done = run_export(
        card, "--weights", checkpoint, "-o", output, "--temporal-stride", str(stride), "--json"
    )
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert len(list((checkpoint / "transformer").glob("*.safetensors"))) > 1
    assert max(told["parity"].values()) <= MAX_RELATIVE_ERROR
    assert told["encoder"] == {"frames": 1 if stride == 1 else 5, "caches": 0}
    tracks = Tracker.load(output).track(moving_clip(7)[:, :32, :48], [[0, 20, 15], [3, 30, 20]])
    assert np.isfinite(tracks.points).all()


@pytest.mark.slow
def test_random_weights_and_unrotated_queries(card: Path, tmp_path: Path) -> None:
    text = card.read_text().replace('"keys"', '"queries"\nrotated = false')
    card.write_text(text)
    done = run_export(card, "--random-weights", "-o", tmp_path / "b", "--described", "1", "--json")
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert (told["source"]["tensor"], told["source"]["random_weights"]) == ("queries", True)


def _rewrite(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(content | changes))

    return damage


def _rewrite_transformer(**changes: object) -> Callable[[Path], None]:
    return _rewrite("transformer/config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_rewrite_transformer(image_condition_type="token_replace"), "continues an image"),
        (_rewrite_transformer(in_channels=33), "has in_channels 33, the card 4"),
        (
            _rewrite_transformer(_class_name="HunyuanVideo15Transformer3DModel"),
            "describes a HunyuanVideo15Transformer3DModel, not a HunyuanVideoTransformer3DModel",
        ),
        (
            _rewrite_transformer(_class_name="HunyuanVideoFramepackTransformer3DModel"),
            "describes a HunyuanVideoFramepackTransformer3DModel",
        ),
        (_rewrite_transformer(rope_axes_dim=[8, 4, 4]), r"has rope_axes_dim \[8, 4, 4\]"),
        (
            _rewrite("vae/config.json", _class_name="AutoencoderKLHunyuanVideo15"),
            "describes a AutoencoderKLHunyuanVideo15",
        ),
        (lambda path: shutil.rmtree(path / "text_encoder_2"), "lacks text_encoder_2"),
        (lambda path: shutil.rmtree(path / "tokenizer"), "lacks tokenizer,"),
    ],
)
def test_other_models_are_refused(
    card: Path, checkpoint: Path, tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    damage(folder)
    done = run_export(card, "--weights", folder, "-o", tmp_path / "bundle")
    assert isinstance(done.exception, VditrackError), done.exception
    with pytest.raises(VditrackError, match=complaint):
        raise done.exception
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("block = 1", "block = 3", "block 3 has a single stream"),
        ("block = 1", "block = 4", "block 4 has a single stream"),
        ("block = 1", "block = 5", "block is not one of"),
        ("pooled_dim = 8", "pooled_dim = 17", "pooled_dim is more than text_dim"),
    ],
)
def test_cards_that_make_no_sense(card: Path, old: str, new: str, complaint: str) -> None:
    card.write_text(card.read_text().replace(old, new))
    with pytest.raises(InputError, match=complaint):
        load_card(str(card))
