"""`vditrack export` from folders as diffusers pipelines save them, small and random."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXTransformer3DModel,
    CosmosTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel
from transformers import UMT5Config as Umt5Config
from transformers import UMT5EncoderModel as Umt5EncoderModel
from typer.testing import CliRunner

from vditrack import Tracker, VditrackError
from vditrack_export.card import load_card
from vditrack_export.pipeline.cli import export
from vditrack_export.pipeline.empty_prompt import empty_prompt

TEXT_DIM, TEXT_TOKENS = 16, 7

TOP = """
name = "small"
checkpoint = "random numbers"
licence = "Apache-2.0"
notes = "for tests"
[input]
height = 64
width = 96
frames = 5
described_frames = 5
temporal_stride = 1
"""
BOTTOM = """
[feature]
block = 1
heads = [1]
tensor = "keys"
frequency_range = [0.0, 1.0]
signal_level = 0.9
noise_level = 0.1
timestep = 100.0
noise_seed = 0
[matching]
temperature = 0.05
argmax_radius = 12
search_radius = 48
visibility_threshold = 12
similarity_threshold = 0.4
recovery_threshold = 0.6
template_update = 0.05
update_after_loss = true
horizon = 4
"""
COMMON = """
layers = 3
heads = 2
head_dim = 32
in_channels = 4
out_channels = 4
patch = [1, 2, 2]
text_dim = 16
text_tokens = 7
"""
TEXT = """
layers = 1
width = 16
heads = 2
head_dim = 8
feed_forward = 32
vocabulary = 10
"""
WAN_VAE = """
[encoder]
kind = "wan_autoencoder"
image_channels = 3
base_width = 8
multiples = [1, 1, 2, 2]
residual_blocks = 1
temporal_downsample = [false, true, true]
latent_channels = 4
"""
CARDS = {
    "wan": f'[transformer]\nfamily = "wan"\nfeed_forward = 48\nfrequency_dim = 16{COMMON}{WAN_VAE}'
    f'[text_encoder]\nkind = "umt5"{TEXT}',
    "cosmos": f'[transformer]\nfamily = "cosmos"\nfeed_forward = 256\nmodulation_dim = 8\n'
    f"rope_scale = [1.0, 3.0, 3.0]{COMMON}{WAN_VAE}"
    f'[text_encoder]\nkind = "t5"\ngated = false{TEXT}',
    "cogvideox": f'[transformer]\nfamily = "cogvideox"\nfeed_forward = 256\ntime_dim = 24\n'
    f"rotary = true{COMMON}"
    '[encoder]\nkind = "cogvideox_autoencoder"\nimage_channels = 3\nwidths = [32, 32, 32, 32]\n'
    "residual_blocks = 1\ntemporal_stride = 4\nlatent_channels = 4\n"
    f'[text_encoder]\nkind = "t5"\ngated = false{TEXT}',
}


def transformer(family: str) -> torch.nn.Module:
    shape: dict[str, Any] = {
        "num_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "out_channels": 4,
    }
    if family == "wan":
        return WanTransformer3DModel(
            **shape, in_channels=4, text_dim=TEXT_DIM, freq_dim=16, ffn_dim=48
        )
    if family == "cogvideox":
        return CogVideoXTransformer3DModel(
            **shape,
            in_channels=4,
            time_embed_dim=24,
            text_embed_dim=TEXT_DIM,
            max_text_seq_length=TEXT_TOKENS,
            sample_height=8,
            sample_width=12,
            use_rotary_positional_embeddings=True,
        )
    return CosmosTransformer3DModel(
        **shape,
        in_channels=5,
        text_embed_dim=TEXT_DIM,
        adaln_lora_dim=8,
        rope_scale=(1.0, 3.0, 3.0),
        extra_pos_embed_type=None,
    )


def autoencoder(family: str) -> torch.nn.Module:
    if family == "cogvideox":
        return AutoencoderKLCogVideoX(
            block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4
        )
    return AutoencoderKLWan(
        base_dim=8,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        z_dim=4,
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.0, 2.0, 0.5, 1.0],
    )


def text_encoder(family: str) -> torch.nn.Module:
    shape = {
        "vocab_size": 10,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
    }
    if family == "wan":
        return Umt5EncoderModel(Umt5Config(**shape))
    return T5EncoderModel(T5Config(**shape))


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    words.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


@pytest.fixture(scope="module", params=CARDS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def save_pipeline(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    transformer(family).save_pretrained(folder / "transformer", max_shard_size="100KB")
    autoencoder(family).save_pretrained(folder / "vae")
    text_encoder(family).save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp(family), family)


@pytest.fixture
def card(family: str, tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TOP + CARDS[family] + BOTTOM)
    return path


def run(card: Path, *options: Path | str) -> Any:
    app = typer.Typer()
    app.command()(export)
    return CliRunner().invoke(app, [str(card), *map(str, options)])


def moving_clip(frames: int) -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 255, (10, 14, 3), np.uint8)
    large = np.kron(picture, np.ones((8, 8, 1), np.uint8))
    return np.stack([large[:64, t : t + 96] for t in range(frames)])


@pytest.mark.parametrize("stride", [1, 4])
def test_a_bundle_that_tracks(
    family: str, checkpoint: Path, card: Path, tmp_path: Path, stride: int
) -> None:
    output = tmp_path / "bundle"
    done = run(
        card, "--weights", checkpoint, "-o", output, "--temporal-stride", str(stride), "--json"
    )
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert len(list((checkpoint / "transformer").glob("*.safetensors"))) > 1
    assert set(told["parity"]) == {"encoder_vs_original", "features_vs_full_model"}
    assert max(told["parity"].values()) <= 1e-4
    assert told["source"]["random_weights"] is False
    carries = family != "cogvideox"
    assert told["encoder"]["frames"] == (stride if carries else 5)
    assert ("encoder_start.onnx" in told["files"]) == (carries and stride == 4)
    tracks = Tracker.load(output).track(moving_clip(7), [[0, 40, 30], [3, 60, 40]])
    assert tracks.points.shape == (2, 7, 2)
    assert np.isfinite(tracks.points).all()


def test_sizes_and_places_of_the_command_line(card: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = ("--size", "32x48", "--frames", "3", "--described", "1", "--block", "0")
    done = run(
        card, "--weights", checkpoint, "-o", tmp_path / "b", *options, "--heads", "1,0", "--json"
    )
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    given = {
        "height": 32,
        "width": 48,
        "frames": 3,
        "described_frames": 1,
        "temporal_stride": 1,
        "overlap": 1,
    }
    if told["encoder"]["caches"] or told["encoder"]["frames"] == 1:
        assert told["input"] == given
    assert (told["source"]["block"], told["source"]["heads"]) == (0, [1, 0])


def test_random_weights_need_no_checkpoint(card: Path, tmp_path: Path) -> None:
    done = run(card, "--random-weights", "-o", tmp_path / "b", "--json")
    assert done.exception is None, done.exception
    assert json.loads(done.stdout)["source"]["random_weights"] is True


def test_a_long_window_is_proved_on_a_small_one(
    card: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vditrack_export.pipeline.export._PARITY_TOKENS", 10)
    done = run(card, "--weights", checkpoint, "-o", tmp_path / "b", "--json")
    assert done.exception is None, done.exception
    names = set(json.loads(done.stdout)["parity"])
    assert names == {"encoder_vs_original_at_64x96x3", "features_vs_full_model_at_64x96x3"}


def test_the_empty_prompt_is_the_pipelines(tmp_path: Path) -> None:
    folder, card = save_pipeline(tmp_path, "wan"), tmp_path / "small.toml"
    card.write_text(TOP + CARDS["wan"] + BOTTOM)
    encoder = Umt5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
    pipeline = WanPipeline(tokenizer(), encoder, autoencoder("wan"), None, transformer("wan"))
    expected = pipeline._get_t5_prompt_embeds("", max_sequence_length=TEXT_TOKENS)[0].float()
    found = empty_prompt(load_card(str(card)), folder, None)
    assert torch.equal(found, expected)
    assert found[1:].abs().max() == 0


def test_a_prompt_is_kept_and_used_again(card: Path, checkpoint: Path, tmp_path: Path) -> None:
    kept, alone = tmp_path / "prompt.safetensors", tmp_path / "alone"
    first = run(card, "--weights", checkpoint, "-o", tmp_path / "a", "--prompt", kept)
    assert first.exception is None, first.exception
    shutil.copytree(checkpoint, alone, ignore=shutil.ignore_patterns("text_encoder", "tokenizer"))
    refused = run(card, "--weights", alone, "-o", tmp_path / "b")
    assert "lacks tokenizer" in str(refused.exception)
    second = run(card, "--weights", alone, "-o", tmp_path / "b", "--prompt", kept)
    assert second.exception is None, second.exception
    graphs = [(tmp_path / name / "features.onnx").read_bytes() for name in "ab"]
    assert graphs[0] == graphs[1]
    save_file({"prompt": load_file(kept)["prompt"] + 1}, kept, {"sha256": "0" * 64})
    altered = run(card, "--weights", alone, "-o", tmp_path / "c", "--prompt", kept)
    assert "was altered" in str(altered.exception)


def _rewrite(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        (checkpoint / name).write_text(json.dumps(content | changes))

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: shutil.rmtree(path / "vae"), "lacks vae/config.json"),
        (lambda path: shutil.rmtree(path / "transformer"), "lacks transformer/config.json"),
        (
            lambda path: min((path / "transformer").glob("*-of-*.safetensors")).unlink(),
            "lacks transformer/diffusion_pytorch_model-00001",
        ),
        (_rewrite("transformer/config.json", num_layers=9), "has num_layers 9, the card 3"),
        (_rewrite("vae/config.json", latent_channels=9, z_dim=9), "9, the card 4"),
        (_rewrite("vae/config.json", _class_name="AutoencoderKL"), "describes a AutoencoderKL"),
    ],
)
def test_another_models_folder_is_refused(
    card: Path, checkpoint: Path, tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    damage(folder)
    before = sorted(tmp_path.iterdir())
    done = run(card, "--weights", folder, "-o", tmp_path / "bundle")
    assert isinstance(done.exception, VditrackError), done.exception
    assert complaint in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "either --weights DIR or --random-weights"),
        (("--random-weights", "--weights", "x"), "either --weights DIR or --random-weights"),
        (("--random-weights", "--size", "64"), "--size 64 is not HEIGHTxWIDTH"),
        (("--random-weights", "--size", "60x96"), "do not divide into cells"),
        (("--random-weights", "--heads", "a"), "--heads a is not a list"),
        (("--random-weights", "--heads", "2"), "heads are not the transformer's"),
        (("--random-weights", "--block", "3"), "block is not one of"),
        (("--random-weights", "--temporal-stride", "4", "--frames", "6"), "1 + a multiple of"),
        (("--random-weights", "--frames", "5", "--described", "9"), "more than frames"),
    ],
)
def test_options_that_make_no_sense(
    card: Path, tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    done = run(card, "-o", tmp_path / "bundle", *options)
    assert isinstance(done.exception, VditrackError), done.exception
    assert complaint in str(done.exception)
