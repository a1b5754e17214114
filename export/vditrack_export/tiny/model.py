"""The bundled model's parts: a convolutional encoder, and a small Wan transformer on its latents.

The transformer is diffusers' own ``WanTransformer3DModel``, unmodified; its keys are caught as they
leave the norm and are turned by the model's own rotary tables.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

LATENTS = 24
STRIDE = 8
WINDOW = 2
HEADS, HEAD_DIM = 6, 32
TEXT = 32

_WIDTHS = (32, 64, 128)
_WEIGHTS, _SHAPE = "encoder.safetensors", "encoder.json"


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

    def __init__(self, latents: int = LATENTS, widths: tuple[int, ...] = _WIDTHS) -> None:
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

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(LATENTS, width, 3, padding=1),
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


def new_transformer() -> WanTransformer3DModel:
    """Make a small Wan transformer with random weights: 5 blocks of 6 heads of 32."""
    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_DIM,
        in_channels=LATENTS,
        out_channels=LATENTS,
        text_dim=TEXT,
        freq_dim=64,
        ffn_dim=768,
        num_layers=5,
        rope_max_seq_len=64,
    )


def prompt(batch: int) -> Tensor:
    """Return the empty prompt: one all-zero token, [batch, 1, text]."""
    return torch.zeros(batch, 1, TEXT)


class CaughtKeys:
    """Keys of one block, filled by each run of the model inside `catch_keys`."""

    normed: Tensor


@contextmanager
def catch_keys(model: WanTransformer3DModel, block: int) -> Iterator[CaughtKeys]:
    """Catch the post-norm keys [B, N, width] of a block's self-attention."""
    caught = CaughtKeys()

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        caught.normed = output

    handle = model.blocks[block].attn1.norm_k.register_forward_hook(keep)
    try:
        yield caught
    finally:
        handle.remove()


def rotated(model: WanTransformer3DModel, keys: Tensor, latents: Tensor) -> Tensor:
    """Turn keys [B, N, width] by the rotary angles of latents [B, C, T, h, w].

    Returns:
        [B, N, heads, head_dim]

    """
    by_head = keys.float().view(*keys.shape[:2], HEADS, HEAD_DIM)
    cos, sin = model.rope(latents)
    cos, sin = cos[..., 0::2].float(), sin[..., 1::2].float()
    even, odd = by_head[..., 0::2], by_head[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
