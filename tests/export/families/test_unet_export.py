"""`vditrack export` of UNets from folders as diffusers pipelines save them, small and random."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    I2VGenXLUNet,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UNetSpatioTemporalConditionModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from doubles.cards import make_card
from doubles.commands import run_command
from doubles.pipelines import run_export
from vditrack.bundle.folder import load_bundle
from vditrack.errors import InputError
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import SlidingWindow, clip_features
from vditrack_export.card import load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.checkpoint import load_checkpoint
from vditrack_export.pipeline.empty_prompt import empty_prompt
from vditrack_export.pipeline.parity import choose_parity_size
from vditrack_export.select.cli import select

pytestmark = pytest.mark.slow

TEXT_DIM, TEXT_TOKENS = 32, 7

READ = {"height": 32, "width": 48, "heads": [0], "tensor": "hidden", "noise_level": 0.4}
"""What cards of these UNets say of the input and the feature."""
SHAPES = """
widths = [32, 64]
residual_blocks = 1
in_channels = 4
out_channels = 4
"""
TEXT = """
text_dim = 32
text_tokens = 7
"""
VAE = """
[encoder]
kind = "kl_autoencoder"
image_channels = 3
widths = [32, 32]
residual_blocks = 1
latent_channels = 4
scaling_factor = 0.2
"""
CLIP = """
[text_encoder]
kind = "clip"
layers = 1
width = 32
heads = 2
head_dim = 16
feed_forward = 32
vocabulary = 10
"""
CARDS = {
    "stable_diffusion": '[transformer]\nfamily = "stable_diffusion"\n'
    f"attention_heads = [2, 4]{SHAPES}{TEXT}{VAE}{CLIP}",
    "adm": '[transformer]\nfamily = "adm"\nwidths = [32, 64]\nresidual_blocks = 1\n'
    "in_channels = 3\nout_channels = 6\nhead_dim = 16\nattention = [false, true]\n"
    '[encoder]\nkind = "pixels"\nlatent_channels = 3\n',
    "i2vgen_xl": 'overlap = 2\n[transformer]\nfamily = "i2vgen_xl"\nhead_dim = 16\nfps = 8'
    f"{SHAPES}{TEXT}{VAE}{CLIP}",
    "stable_video_diffusion": 'overlap = 2\n[transformer]\nfamily = "stable_video_diffusion"\n'
    "attention_heads = [2, 4]\nimage_dim = 32\ncondition_dim = 16\nfps = 7\nmotion_bucket = 127\n"
    f"noise_augmentation = 0.0{SHAPES}{VAE}temporal_decoder = true\n",
}


def unet(family: str) -> torch.nn.Module:
    shape: dict[str, Any] = {"block_out_channels": (32, 64), "layers_per_block": 1}
    if family == "stable_diffusion":
        return UNet2DConditionModel(
            **shape,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=(2, 4),
            cross_attention_dim=TEXT_DIM,
            use_linear_projection=True,
        )
    if family == "adm":
        return UNet2DModel(
            **shape,
            out_channels=6,
            attention_head_dim=16,
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attn_norm_num_groups=32,
        )
    if family == "i2vgen_xl":
        return I2VGenXLUNet(
            **shape,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            attention_head_dim=16,
            cross_attention_dim=TEXT_DIM,
        )
    return UNetSpatioTemporalConditionModel(
        **shape,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        num_attention_heads=(2, 4),
        cross_attention_dim=TEXT_DIM,
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
    )


def autoencoder(family: str) -> torch.nn.Module:
    shape: dict[str, Any] = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "layers_per_block": 1,
        "scaling_factor": 0.2,
    }
    if family == "stable_video_diffusion":
        return AutoencoderKLTemporalDecoder(**shape)
    return AutoencoderKL(**shape, up_block_types=("UpDecoderBlock2D",) * 2)


def text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=10,
            hidden_size=TEXT_DIM,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TEXT_TOKENS,
        )
    ).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    words.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=TEXT_TOKENS,
    )


def save_pipeline(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    unet(family).save_pretrained(folder / "unet", max_shard_size="400KB")
    if family != "adm":
        autoencoder(family).save_pretrained(folder / "vae")
    if family in ("stable_diffusion", "i2vgen_xl"):
        text_encoder().save_pretrained(folder / "text_encoder")
        tokenizer().save_pretrained(folder / "tokenizer")
    return folder


def card_of(family: str, folder: Path) -> Path:
    path = folder / "small.toml"
    frames = 4 if "overlap" in CARDS[family] else 1
    path.write_text(make_card(CARDS[family], frames=frames, described_frames=frames, **READ))
    return path


def clip(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, 32, 48, 3), np.uint8)


# Exporting graphs of so many nodes takes its time.
FAMILIES = [
    pytest.param(family, marks=[pytest.mark.slow] * ("overlap" in text))
    for family, text in CARDS.items()
]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bundle_from_a_folder(family: str, tmp_path: Path) -> None:
    """Proved against the original by the export itself; it describes every frame, in windows."""
    weights, output = save_pipeline(tmp_path / "weights", family), tmp_path / "bundle"
    assert len(list((weights / "unet").glob("*.safetensors"))) > 1
    done = run_export(card_of(family, tmp_path), "--weights", weights, "-o", output, "--json")
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert set(told["parity"]) == {"encoder_vs_original", "features_vs_full_model"}
    assert max(told["parity"].values()) <= 1e-5
    source, size = told["source"], told["output"]
    assert (source["tensor"], source["heads"]) == ("hidden", [0])
    assert source["channels"] == list(range(64))
    stride = 1 if family == "adm" else 2
    assert (size["rows"], size["columns"], size["stride"]) == (32 // stride, 48 // stride, stride)
    extractor = FeatureExtractor(load_bundle(output))
    maps = list(clip_features(extractor, clip(7)))
    assert [found.descriptors.shape for found in maps] == [(32 // stride, 48 // stride, 64)] * 7
    assert all(np.isfinite(found.descriptors).all() for found in maps)
    window = SlidingWindow(extractor)
    (newest,) = [window.push(frame) for frame in clip(4)][-1]
    if told["input"]["frames"] == 1:
        assert np.array_equal(newest.descriptors, maps[3].descriptors)
    else:
        assert newest.descriptors.shape == maps[3].descriptors.shape


def test_bf16_is_refused(tmp_path: Path) -> None:
    """An engine of such a bundle would multiply mostly in FP32, so none is built."""
    path, output = card_of("adm", tmp_path), tmp_path / "bundle"
    done = run_export(path, "--random-weights", "-o", output, "--precision", "bf16")
    assert isinstance(done.exception, InputError)
    assert "would stay in FP32" in str(done.exception)
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["stable_diffusion", "stable_video_diffusion", "adm"])
def test_random_weights_need_no_checkpoint(family: str, tmp_path: Path) -> None:
    """Of another layer and size than the card's, whose sides are not halved evenly.

    As those of 480 rows are not, three times after the autoencoder. Those of pixels have to be.
    """
    size, stride = ("64x48", 2) if family == "adm" else ("92x60", 4)
    options = ("--size", size, "--block", "0", "--json")
    done = run_export(card_of(family, tmp_path), "--random-weights", "-o", tmp_path / "b", *options)
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert told["source"]["random_weights"] is True
    assert (told["output"]["stride"], told["output"]["rows"]) == (stride, int(size[-2:]) // stride)


def test_a_long_window_is_proved_on_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test_export_pipelines` exports such a window."""
    monkeypatch.setattr("vditrack_export.pipeline.parity._TOKENS", 10)
    size = choose_parity_size(load_card(str(card_of("stable_diffusion", tmp_path))))
    assert (size.height, size.width, size.frames, size.described_frames) == (24, 32, 1, 1)


# Prompts


def test_the_empty_prompt_is_the_pipelines(tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path / "weights", "stable_diffusion")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
    pipeline = StableDiffusionPipeline(
        autoencoder("stable_diffusion"),
        encoder,
        tokenizer(),
        unet("stable_diffusion"),
        DDIMScheduler(),
        None,
        None,
        requires_safety_checker=False,
    )
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt("", "cpu", 1, False)
    found = empty_prompt(load_card(str(card_of("stable_diffusion", tmp_path))), Weights(folder))
    assert found.shape == (TEXT_TOKENS, TEXT_DIM)
    assert torch.equal(found, expected[0].float())


@pytest.mark.parametrize(("family", "tokens"), [("stable_video_diffusion", 1), ("adm", 0)])
def test_without_a_text_encoder_the_condition_is_zero(
    family: str, tokens: int, tmp_path: Path
) -> None:
    found = empty_prompt(load_card(str(card_of(family, tmp_path))), Weights(tmp_path))
    assert len(found) == tokens
    assert not found.any()


# Checkpoints


def test_weights_under_the_names_of_older_diffusers(tmp_path: Path) -> None:
    """As the autoencoder of Stable Diffusion 2.1 has them still; diffusers itself reads both."""
    folder = save_pipeline(tmp_path / "weights", "stable_diffusion")
    card = load_card(str(card_of("stable_diffusion", tmp_path)))
    today = load_checkpoint(card, Weights(folder))
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, weights in load_file(path).items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")  # noqa: PLW2901
        renamed[name] = weights
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, path)
    again = load_checkpoint(card, Weights(folder))
    theirs = AutoencoderKL.from_pretrained(folder / "vae").state_dict()
    for name, weights in again.encoder.state_dict().items():
        assert torch.equal(weights, today.encoder.state_dict()[name])
        assert torch.equal(weights, theirs[name])


def _rewrite(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(content | changes))

    return damage


@pytest.mark.parametrize(
    ("family", "damage", "complaint"),
    [
        ("stable_diffusion", lambda path: shutil.rmtree(path / "vae"), "lacks vae/config.json"),
        ("adm", lambda path: shutil.rmtree(path / "unet"), "lacks unet/config.json"),
        (
            "stable_diffusion",
            _rewrite("unet/config.json", use_linear_projection=False),
            "has use_linear_projection False",
        ),
        (
            "stable_diffusion",
            _rewrite("unet/config.json", addition_embed_type="text_time"),
            "has addition_embed_type text_time",
        ),
        ("stable_diffusion", _rewrite("vae/config.json", scaling_factor=0.1), "the card 0.2"),
        ("stable_diffusion", _rewrite("vae/config.json", shift_factor=0.1), "shift_factor 0.1"),
        ("adm", _rewrite("unet/config.json", num_class_embeds=1000), "num_class_embeds 1000"),
        ("adm", _rewrite("unet/config.json", attn_norm_num_groups=None), "the card 32"),
        ("i2vgen_xl", _rewrite("unet/config.json", in_channels=8), "has in_channels 8"),
        (
            "stable_video_diffusion",
            _rewrite("vae/config.json", _class_name="AutoencoderKL"),
            "describes a AutoencoderKL",
        ),
        (
            "stable_video_diffusion",
            _rewrite("unet/config.json", _class_name="I2VGenXLUNet"),
            "describes a I2VGenXLUNet",
        ),
    ],
)
def test_another_models_folder_is_refused(
    family: str, damage: Callable[[Path], None], complaint: str, tmp_path: Path
) -> None:
    weights, card = save_pipeline(tmp_path / "weights", family), card_of(family, tmp_path)
    damage(weights)
    refused = run_export(card, "--weights", weights, "-o", tmp_path / "bundle")
    assert isinstance(refused.exception, InputError), refused.exception
    assert complaint in str(refused.exception)
    assert "\n" not in str(refused.exception)
    assert not (tmp_path / "bundle").exists()


# Cards


@pytest.mark.parametrize(
    ("family", "old", "new", "complaint"),
    [
        ("adm", "block = 1\n", "block = 4\n", "not one of the 4 layers of the decoder"),
        ("adm", 'tensor = "hidden"', 'tensor = "keys"', "hidden states are read, whole"),
        ("adm", "heads = [0]", "heads = [0, 1]", "hidden states are read, whole"),
        ("adm", "[0.0, 1.0]", "[0.5, 1.0]", "hidden states are read, whole"),
        ("adm", "attention = [false, true]", "attention = [true]", "as many entries as widths"),
        ("adm", "height = 32", "height = 33", "do not divide into squares of 2"),
        ("adm", "latent_channels = 3", "latent_channels = 4", "$.encoder"),
        ("i2vgen_xl", "timestep = 100.0", "timestep = -0.1", "timestep is less than 0"),
        (
            "stable_diffusion",
            "temporal_stride = 1",
            "temporal_stride = 4",
            "of the encoder's: give 1",
        ),
        ("i2vgen_xl", "fps = 8", "fps = 0", "$.transformer.fps"),
        ("stable_diffusion", "text_dim = 32", "text_dim = 16", "width of the text encoder"),
        ("stable_diffusion", "attention_heads = [2, 4]", "attention_heads = [2]", "as many"),
        ("stable_diffusion", "height = 32", "height = 33", "do not divide into cells of 2"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    family: str, old: str, new: str, complaint: str, tmp_path: Path
) -> None:
    card = card_of(family, tmp_path)
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new, 1))
    refused = run_export(card, "--random-weights", "-o", tmp_path / "bundle")
    assert isinstance(refused.exception, InputError), refused.exception
    assert complaint in str(refused.exception)


def test_steps_of_stable_video_diffusion_may_be_below_0(tmp_path: Path) -> None:
    card = card_of("stable_video_diffusion", tmp_path)
    card.write_text(card.read_text().replace("timestep = 100.0", "timestep = -0.1"))
    assert load_card(str(card)).feature.timestep == -0.1


@pytest.mark.parametrize(
    "arguments",
    [
        (select, "--random-weights", "--data", "synthetic:1"),
    ],
)
def test_other_verbs_refuse_a_unet(arguments: tuple[Any, ...]) -> None:
    verb, *options = arguments
    refused = run_command(verb, "i2vgen-xl", *options)
    assert isinstance(refused.exception, InputError), refused.exception
    assert "card i2vgen-xl: it has a UNet" in str(refused.exception)


@pytest.mark.parametrize(
    ("name", "millions", "cell", "width"),
    [
        ("stable-diffusion-2.1", 865.910724, 8, 640),
        ("adm-imagenet-256", 552.814086, 8, 512),
        ("i2vgen-xl", 1420.469224, 8, 640),
        ("stable-video-diffusion", 1524.623082, 8, 640),
    ],
)
def test_the_cards_shapes(name: str, millions: float, cell: int, width: int) -> None:
    """Stable Diffusion's parameters are as many as published; the others' must not change."""
    card = load_card(name)
    denoiser = card.family.denoiser
    with torch.device("meta"):
        model = denoiser.model_class(**denoiser.config())
    assert sum(weights.numel() for weights in model.parameters()) == round(millions * 1e6)
    assert (card.cell, card.transformer.width(card.feature.block)) == (cell, width)
    total = card.feature.signal_level**2 + card.feature.noise_level**2
    assert total == pytest.approx(1, abs=1e-6)
