"""From latents to descriptors through a Cosmos transformer.

A diffusers ``CosmosTransformer3DModel`` (Cosmos-Predict2 Video2World) is cut after the keys or
queries of one block's self-attention (HeFT, arXiv 2512.04619), or after the block. Everything that
does not depend on the latents is computed once, here, in FP32: noise, timestep modulation, the
prompt's keys and values, rotary tables.

No frame is conditioned. Video2World continues a clip: its first frames come without noise, are
marked in a channel of their own and have another timestep. Frames of a tracked clip are compared
with each other, so all are treated alike, as the frames that the pipeline denoises, with one
timestep. The channels that mark conditioned frames and padding are zero, and their weights are left
out.
"""

import torch
from diffusers import CosmosTransformer3DModel
from diffusers.models.transformers.transformer_cosmos import (
    CosmosAdaLayerNormZero,
    CosmosPatchEmbed,
    CosmosTransformerBlock,
)
from torch import Tensor, nn

from vditrack_export.families.attention import RotaryTables, SelfAttention, cross_attention
from vditrack_export.families.feature_path import PromptedBlock, TransformerPath
from vditrack_export.families.layers import fold_modulation
from vditrack_export.families.prompt_tokens import merge_tokens
from vditrack_export.families.read_out import read_out
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape

PIPELINE_FPS = 16.0
"""Default frame rate of diffusers' ``Cosmos2VideoToWorldPipeline``, in frames per second."""

Timestep = tuple[Tensor, Tensor]
"""Its part of every modulation, [1, 3 width], and its embedding, as blocks take them."""


class CosmosPath(TransformerPath):
    """Keys, queries or hidden states of chosen heads and channels after one denoising step.

    Keys and queries are those after their norm.

    Args:
        model: The whole transformer in FP32, without learnable positions, image context or
            projection of the prompt; its submodules are shared.
        latent_shape: Channels, frames, rows and columns of the latents, without the masks.
        cut: What is read.
        denoising: The denoising step. The pipeline scales what it denoises: with sigma of its
            scheduler, timestep and noise are sigma / (1 + sigma), and signal is 1 / (1 + sigma).
        prompt: Output of the text encoder with its padding, float32 [tokens, text_dim].
        fps: Frame rate in frames per second, by which the rotary embedding scales time.

    """

    def __init__(
        self,
        model: CosmosTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
        fps: float = PIPELINE_FPS,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, model.config.patch_size[1], cut, denoising)
        with torch.no_grad():
            self.patch_embedding = _patch_embedding(model.patch_embed, latent_shape[0])
            timestep = model.time_embed(prompt, torch.tensor([denoising.timestep]))
            context, log_counts = merge_tokens(prompt)
            rotary = _rotary_tables(model, latent_shape, fps)

            def block(source: CosmosTransformerBlock, newest: int) -> nn.Module:
                prompted = cross_attention(source.attn2, context[None], log_counts, head_norms=True)
                return _block(source, timestep, prompted, newest)

            self.blocks = self.build_blocks(model.transformer_blocks, block)
            chosen = model.transformer_blocks[cut.block]
            norm1, _ = _constant_norm(chosen.norm1, timestep)
            tables = rotary.newest(self.newest)
            self.reading = read_out(norm1, chosen.attn1, cut, tables, head_norms=True, halves=True)
        self.set_rotary(rotary, halves=True)


def _block(
    block: CosmosTransformerBlock, timestep: Timestep, prompted: nn.Module, newest: int
) -> PromptedBlock:
    norm1, attention_gate = _constant_norm(block.norm1, timestep)
    norm2, prompt_gate = _constant_norm(block.norm2, timestep)
    norm3, feed_forward_gate = _constant_norm(block.norm3, timestep)
    return PromptedBlock(
        self_attention=SelfAttention(block.attn1, head_norms=True, halves=True),
        cross_attention=prompted,
        feed_forward=block.ff,
        norms=(norm1, norm2, norm3),
        gates=(attention_gate, prompt_gate, feed_forward_gate),
        newest=newest,
    )


def _constant_norm(norm: CosmosAdaLayerNormZero, timestep: Timestep) -> tuple[nn.LayerNorm, Tensor]:
    """Fold the timestep into a norm; also return the gate [1, width] of what comes after it."""
    modulation, embedded = timestep
    own = norm.linear_2(norm.linear_1(norm.activation(embedded)))
    shift, scale, gate = (own + modulation).chunk(3, dim=-1)
    return fold_modulation(norm.norm, scale, shift), gate


def _patch_embedding(embed: CosmosPatchEmbed, channels: int) -> nn.Conv3d:
    """Return the embedding of the latents' channels; the masks' channels after them are zero."""
    weight = embed.proj.weight.unflatten(1, (-1, *embed.patch_size))[:, :channels]
    embedding = nn.Conv3d(
        channels, len(weight), embed.patch_size, stride=embed.patch_size, bias=False
    )
    embedding.weight.copy_(weight)
    return embedding


def _rotary_tables(
    model: CosmosTransformer3DModel, latent_shape: LatentShape, fps: float
) -> RotaryTables:
    cos, sin = (
        table.chunk(2, dim=-1)[0][None, :, None]
        for table in model.rope(torch.empty(1, *latent_shape), fps=fps)
    )
    return RotaryTables(cos, sin)
