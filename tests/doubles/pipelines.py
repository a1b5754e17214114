"""Small random checkpoints as diffusers pipelines save them, their cards, and their export."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXTransformer3DModel,
    CosmosTransformer3DModel,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel
from transformers import UMT5Config as Umt5Config
from transformers import UMT5EncoderModel as Umt5EncoderModel
from typer.testing import Result

from doubles.cards import SHAPE, make_card
from doubles.commands import run_command
from vditrack.bundle.folder import Bundle, load_bundle
from vditrack_export.pipeline.cli import export

TEXT_DIM, TEXT_TOKENS = 16, 7

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
FAMILY_SECTIONS = {
    "wan": f'[transformer]\nfamily = "wan"\nfeed_forward = 48\nfrequency_dim = 16{SHAPE}{WAN_VAE}'
    f'[text_encoder]\nkind = "umt5"{TEXT}',
    "cosmos": f'[transformer]\nfamily = "cosmos"\nfeed_forward = 256\nmodulation_dim = 8\n'
    f"rope_scale = [1.0, 3.0, 3.0]{SHAPE}{WAN_VAE}"
    f'[text_encoder]\nkind = "t5"\ngated = false{TEXT}',
    "cogvideox": f'[transformer]\nfamily = "cogvideox"\nfeed_forward = 256\ntime_dim = 24\n'
    f"rotary = true{SHAPE}"
    '[encoder]\nkind = "cogvideox_autoencoder"\nimage_channels = 3\nwidths = [32, 32, 32, 32]\n'
    "residual_blocks = 1\ntemporal_stride = 4\nlatent_channels = 4\n"
    f'[text_encoder]\nkind = "t5"\ngated = false{TEXT}',
}


def make_transformer(family: str) -> torch.nn.Module:
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


def make_autoencoder(family: str) -> torch.nn.Module:
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


def make_text_encoder(family: str) -> torch.nn.Module:
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


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    words.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def card_text(family: str) -> str:
    """Return the card of a family's small checkpoint."""
    return make_card(FAMILY_SECTIONS[family])


def save_pipeline(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    make_transformer(family).save_pretrained(folder / "transformer", max_shard_size="100KB")
    make_autoencoder(family).save_pretrained(folder / "vae")
    make_text_encoder(family).save_pretrained(folder / "text_encoder")
    make_tokenizer().save_pretrained(folder / "tokenizer")
    return folder


def run_export(card: Path | str, *options: Path | str) -> Result:
    """Run ``vditrack export`` on a card in this process."""
    return run_command(export, card, *options)


@dataclass(frozen=True)
class ExportedBundle:
    """A bundle that the export command wrote, and the JSON that it printed."""

    bundle: Bundle
    printed: dict[str, Any]


@contextmanager
def use_one_acceptance_clip() -> Iterator[None]:
    """Track one clip in place of four in exports: torch takes minutes for four in FP16."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("acceptance", "verified_graphs"):
            patch.setattr(f"vditrack_export.pipeline.{module}.CLIPS", 1)
        yield


class ExportedPipelines:
    """Bundles of small random pipelines, each exported once, in a folder that processes share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._bundles: dict[tuple[str, str], Bundle] = {}

    @contextmanager
    def _lock(self, family: str) -> Iterator[None]:
        """Keep other processes from writing what belongs to a family."""
        with (self.folder / f"{family}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def checkpoint(self, family: str) -> Path:
        """Return the folder of a family's checkpoint."""
        with self._lock(family):
            return self._save_checkpoint(family)

    def _save_checkpoint(self, family: str) -> Path:
        folder = self.folder / family
        return folder if folder.exists() else save_pipeline(folder, family)

    def prompt(self, family: str) -> Path:
        """Return the file with the empty prompt, which exists after the first export."""
        return self.folder / f"{family}.safetensors"

    def bundle(self, family: str, precision: str = "fp32") -> Bundle:
        """Return the bundle in a precision, accepted whatever it does to tracks."""
        if (family, precision) not in self._bundles:
            output = self.folder / f"{family}-{precision}"
            with self._lock(family):
                # Export writes the whole folder or nothing.
                if not output.exists():
                    with use_one_acceptance_clip():
                        self._export(family, precision, output)
            self._bundles[family, precision] = load_bundle(output)
        return self._bundles[family, precision]

    def _export(self, family: str, precision: str, output: Path) -> None:
        card = self.folder / f"{family}.toml"
        card.write_text(card_text(family))
        options = ("--precision", precision, "--accept")
        source = ("--weights", self._save_checkpoint(family), "--prompt", self.prompt(family))
        done = run_export(card, *source, "-o", output, *options)
        assert done.exception is None, done.exception


def moving_clip(frames: int) -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 255, (10, 14, 3), np.uint8)
    large = np.kron(picture, np.ones((8, 8, 1), np.uint8))
    return np.stack([large[:64, t : t + 96] for t in range(frames)])
