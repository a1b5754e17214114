"""Parts of the bundled model that only training needs, and its small Wan transformer.

The transformer is diffusers' own ``WanTransformer3DModel``, unmodified; its keys are caught as they
leave the norm and are turned by the model's own rotary tables.
"""

from dataclasses import dataclass

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

STRIDE = 8
TEXT = 32


@dataclass(frozen=True)
class Shape:
    """Sizes of encoder and transformer; the defaults are those of the copy in ``models/tiny``."""

    latents: int = 64
    widths: tuple[int, ...] = (32, 64)
    residuals: tuple[int, ...] = (1, 2)
    context: tuple[int, ...] = (128, 192)
    """See `TinyEncoder`."""
    layers: int = 2
    heads: int = 4
    head_dim: int = 32
    feed_forward: int = 512


BUNDLED = Shape()


def build_transformer(shape: Shape = BUNDLED) -> WanTransformer3DModel:
    """Return a small Wan transformer with random weights."""
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


def make_empty_prompt(batch: int, device: torch.device | None = None) -> Tensor:
    """Return the empty prompt, one all-zero token, float32 [batch, 1, text]."""
    return torch.zeros(batch, 1, TEXT, device=device)


class _KeysFound(Exception):
    """Leaves a model's forward pass once the keys are there; it is not an error."""

    def __init__(self, keys: Tensor) -> None:
        super().__init__()
        self.keys = keys


def read_normed_keys(
    model: WanTransformer3DModel, block: int, latents: Tensor, timestep: Tensor
) -> Tensor:
    """Return the normalised keys of a block's self-attention, [B, N, width].

    The layers after them do not run, neither forwards nor backwards.
    """

    def leave(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        raise _KeysFound(output)

    handle = model.blocks[block].attn1.norm_k.register_forward_hook(leave)
    try:
        model(latents, timestep, make_empty_prompt(len(latents), latents.device))
    except _KeysFound as caught:
        return caught.keys
    finally:
        handle.remove()
    raise AssertionError("the block's self-attention did not run")


def rotate_keys(model: WanTransformer3DModel, keys: Tensor, latents: Tensor) -> Tensor:
    """Apply the rotary embedding of latents [B, C, T, h, w] to keys [B, N, width].

    Returns:
        [B, N, heads, head_dim]

    """
    heads, head_dim = model.config.num_attention_heads, model.config.attention_head_dim
    by_head = keys.float().view(*keys.shape[:2], heads, head_dim)
    cos, sin = model.rope(latents)
    cos, sin = cos[..., 0::2].float(), sin[..., 1::2].float()
    even, odd = by_head[..., 0::2], by_head[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
