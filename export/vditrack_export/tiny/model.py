"""The bundled model's parts: a convolutional encoder, and a small Wan transformer on its latents.

The transformer is diffusers' own ``WanTransformer3DModel``, unmodified; its keys are caught as they
leave the norm and are turned by the model's own rotary tables.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 8
WINDOW = 2
TEXT = 32

_WEIGHTS, _SHAPE = "encoder.safetensors", "encoder.json"


@dataclass(frozen=True)
class Shape:
    """Sizes of encoder and transformer; the defaults are those of the copy in ``models/tiny``."""

    latents: int = 48
    widths: tuple[int, ...] = (32, 64, 192)
    """Channels of the encoder after each halving of the picture."""
    layers: int = 3
    heads: int = 6
    head_dim: int = 32
    feed_forward: int = 768


BUNDLED = Shape()


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(functional.silu(x))
        return x + torch.as_tensor(self.second(functional.silu(inner)))


class TinyEncoder(nn.Module):
    """Frames, one at a time, to latents of zero mean and unit variance at an eighth the size."""

    def __init__(
        self, latents: int = BUNDLED.latents, widths: tuple[int, ...] = BUNDLED.widths
    ) -> None:
        super().__init__()
        self.shape = {"latents": latents, "widths": list(widths)}
        levels: list[nn.Module] = []
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            levels += [nn.Conv2d(before, after, 4, stride=2, padding=1), _Residual(after)]
        self.levels = nn.Sequential(*levels)
        self.head = nn.Conv2d(widths[-1], latents, 1)
        # Its running statistics become constants in evaluation, so nothing depends on the data.
        self.norm = nn.BatchNorm2d(latents, affine=False, momentum=0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] in [-1, 1] to float32 [B, latents, H / 8, W / 8]."""
        latents: Tensor = self.norm(self.head(self.levels(frames)).float())
        return latents

    def save(self, folder: Path) -> None:
        """Write weights and shape into an existing folder."""
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)
        (folder / _SHAPE).write_text(json.dumps(self.shape) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "TinyEncoder":
        """Read what `save` wrote, ready for evaluation."""
        shape = json.loads((folder / _SHAPE).read_text())
        encoder = cls(shape["latents"], tuple(shape["widths"]))
        encoder.load_state_dict(load_file(folder / _WEIGHTS))
        return encoder.eval()


class Decoder(nn.Module):
    """Latents back to frames; it serves the reconstruction loss and is then thrown away."""

    def __init__(self, latents: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(latents, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 3 * STRIDE**2, 1),
            nn.PixelShuffle(STRIDE),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Map [B, latents, h, w] to frames [B, 3, 8 h, 8 w] in [-1, 1]."""
        frames: Tensor = self.layers(latents)
        return frames


def new_transformer(shape: Shape = BUNDLED) -> WanTransformer3DModel:
    """Make a small Wan transformer with random weights."""
    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head_dim,
        in_channels=shape.latents,
        out_channels=shape.latents,
        text_dim=TEXT,
        freq_dim=64,
        ffn_dim=shape.feed_forward,
        num_layers=shape.layers,
        rope_max_seq_len=64,
    )


def prompt(batch: int) -> Tensor:
    """Return the empty prompt: one all-zero token, [batch, 1, text]."""
    return torch.zeros(batch, 1, TEXT)


class _Caught(Exception):
    """No error: the way out of a model that has gone far enough."""

    def __init__(self, keys: Tensor) -> None:
        super().__init__()
        self.keys = keys


def normed_keys(
    model: WanTransformer3DModel, block: int, latents: Tensor, timestep: Tensor
) -> Tensor:
    """Run the model as far as the post-norm keys [B, N, width] of a block's self-attention.

    What comes after them is left out, forwards and backwards.
    """

    def leave(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        raise _Caught(output)

    handle = model.blocks[block].attn1.norm_k.register_forward_hook(leave)
    try:
        model(latents, timestep, prompt(len(latents)))
    except _Caught as caught:
        return caught.keys
    finally:
        handle.remove()
    raise AssertionError("the block's self-attention did not run")


def rotated(model: WanTransformer3DModel, keys: Tensor, latents: Tensor) -> Tensor:
    """Turn keys [B, N, width] by the rotary angles of latents [B, C, T, h, w].

    Returns:
        [B, N, heads, head_dim]

    """
    heads, head_dim = model.config.num_attention_heads, model.config.attention_head_dim
    by_head = keys.float().view(*keys.shape[:2], heads, head_dim)
    cos, sin = model.rope(latents)
    cos, sin = cos[..., 0::2].float(), sin[..., 1::2].float()
    even, odd = by_head[..., 0::2], by_head[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
