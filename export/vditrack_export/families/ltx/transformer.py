"""From latents to descriptors through an LTX-Video transformer.

A diffusers ``LTXVideoTransformer3DModel`` is cut after the keys or queries of one block's
self-attention (HeFT, arXiv 2512.04619), or after the block. Everything that does not depend on the
latents is computed once, here, in FP32: noise, timestep modulation, the prompt's keys and values,
rotary tables.
"""

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformerBlock
from torch import Tensor, nn

from vditrack_export.families.attention import RotaryTables, SelfAttention, cross_attention
from vditrack_export.families.feature_path import PromptedBlock, TransformerPath
from vditrack_export.families.layers import split_heads
from vditrack_export.families.read_out import read_out
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.rotary import low_frequency_channels

PIPELINE_FRAME_RATE = 25
"""Default frame rate of diffusers' ``LTXPipeline``, in frames per second."""

FRAMES_A_LATENT, PIXELS_A_LATENT = 8, 32
"""Strides of the autoencoder of LTX-Video, in frames and in pixels."""

ROTARY_SCALE = (FRAMES_A_LATENT / PIPELINE_FRAME_RATE, PIXELS_A_LATENT, PIXELS_A_LATENT)
"""Seconds, rows and columns of pixels per latent, which are the pipeline's positions."""


def ltx_channels(head_dim: int, frequency_range: tuple[float, float]) -> list[int]:
    """Return the channels of an LTX head between two fractions of its own rotary frequencies.

    LTX rotates pairs of neighbouring channels, but frequencies rise with the channel through the
    whole width, not head by head, and time, height and width alternate. A head so has a narrow
    band of frequencies, and the choice of a head is most of the choice of frequencies. Fractions
    count from the head's highest frequency, its last channels. The axes lose equally many pairs, or
    one more.

    Raises:
        InputError: The range has not even one pair of channels.

    """
    falling = low_frequency_channels((head_dim, 0, 0), frequency_range)
    return sorted(head_dim - 1 - channel for channel in falling)


def real_tokens(prompt: Tensor) -> Tensor:
    """Return which rows of a prompt [tokens, text_dim] are no padding, bool [tokens].

    Padding is zero, which no text encoder gives for a token. The first token is never padding.
    """
    real = prompt.any(dim=1)
    return real | (torch.arange(len(prompt)) == 0)


class LtxPath(TransformerPath):
    """Keys, queries or hidden states of chosen heads and channels after one denoising step.

    Keys and queries are those after their norm. Padding of the prompt is left out: the pipeline
    masks it in every attention, so that it has no weight.

    Args:
        model: The whole transformer in FP32, with single latents as tokens; its submodules are
            shared.
        latent_shape: Channels, frames, rows and columns of the latents.
        cut: What is read; of rotated keys and queries whole rotary pairs.
        denoising: The denoising step.
        prompt: Output of the text encoder, float32 [tokens, text_dim], with zeros for its padding.

    """

    def __init__(
        self,
        model: LTXVideoTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, 1, cut, denoising)
        self.embedding = model.proj_in
        with torch.no_grad():
            modulation = _modulation(model, denoising.timestep)
            context = model.caption_projection(prompt[None, real_tokens(prompt)])
            rotary = _rotary_tables(model, latent_shape)
            self.blocks = self.build_blocks(
                model.transformer_blocks,
                lambda source, newest: _block(source, modulation, context, newest),
            )
            chosen = model.transformer_blocks[cut.block]
            shift, scale, *_ = _modulation_of(chosen, modulation)
            norm1 = _ModulatedNorm(chosen.norm1, scale, shift)
            tables = rotary.newest(self.newest)
            self.reading = read_out(norm1, chosen.attn1, cut, tables, head_norms=False)
        self.set_rotary(rotary)

    def embed(self, noised: Tensor) -> Tensor:
        """Map noised latents [1, C, T, h, w] to tokens [1, N, width]."""
        embedded: Tensor = self.embedding(noised.flatten(2).transpose(1, 2))
        return embedded


def _block(
    block: LTXVideoTransformerBlock, modulation: Tensor, context: Tensor, newest: int
) -> PromptedBlock:
    shift, scale, gate, ff_shift, ff_scale, ff_gate = _modulation_of(block, modulation)
    return PromptedBlock(
        self_attention=SelfAttention(block.attn1, head_norms=False),
        cross_attention=cross_attention(block.attn2, context, head_norms=False),
        feed_forward=block.ff,
        norms=(
            _ModulatedNorm(block.norm1, scale, shift),
            nn.Identity(),
            _ModulatedNorm(block.norm2, ff_scale, ff_shift),
        ),
        gates=(gate, None, ff_gate),
        newest=newest,
    )


class _ModulatedNorm(nn.Module):
    """A root-mean-square norm with modulation, norm(x) (1 + scale) + shift."""

    shift: Tensor

    def __init__(self, norm: RMSNorm, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(len(scale), norm.eps)
        self.norm.weight.copy_(1 + scale)
        self.register_buffer("shift", shift)

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens)
        return normed + self.shift


def _modulation(model: LTXVideoTransformer3DModel, timestep: float) -> Tensor:
    """Return what the timestep adds to the modulation of every block, [6, width]."""
    instant = torch.tensor([timestep])
    modulation, _ = model.time_embed(instant, batch_size=1, hidden_dtype=torch.float32)
    return torch.unflatten(modulation, 1, (6, -1))[0]


def _modulation_of(block: LTXVideoTransformerBlock, modulation: Tensor) -> tuple[Tensor, ...]:
    """Return shift, scale and gate [width] of the attention, then of the feed-forward network."""
    table: Tensor = block.scale_shift_table
    return (table + modulation).unbind()


def _rotary_tables(model: LTXVideoTransformer3DModel, latent_shape: LatentShape) -> RotaryTables:
    """Return tables whose angles differ from head to head, [1, N, heads, pairs]."""
    heads = model.config.num_attention_heads
    cos, sin = model.rope(torch.empty(1), *latent_shape[1:], rope_interpolation_scale=ROTARY_SCALE)
    return RotaryTables(split_heads(cos[..., ::2], heads), split_heads(sin[..., ::2], heads))
