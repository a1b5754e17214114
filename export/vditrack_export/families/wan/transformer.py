"""From latents to descriptors through a Wan transformer.

A diffusers ``WanTransformer3DModel`` (Wan2.1-T2V, Wan2.2-T2V and Wan2.2-TI2V) is cut after the keys
or queries of one block's self-attention (HeFT, arXiv 2512.04619), or after the block. Everything
that does not depend on the latents is computed once, here, in FP32: noise, timestep modulation, the
prompt's keys and values, rotary tables.
"""

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from vditrack_export.families.attention import RotaryTables, SelfAttention, cross_attention
from vditrack_export.families.feature_path import PromptedBlock, TransformerPath
from vditrack_export.families.layers import fold_modulation
from vditrack_export.families.prompt_tokens import merge_tokens
from vditrack_export.families.read_out import read_out
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape


class WanPath(TransformerPath):
    """Keys, queries or hidden states of chosen heads and channels after one denoising step.

    Keys and queries are those after their norm. All tokens have the same timestep: Wan2.2-TI2V,
    which takes one for each token, computes the same from equal timesteps.

    Args:
        model: The whole transformer in FP32, without image conditions; its submodules are shared.
        latent_shape: Channels, frames, rows and columns of the latents.
        cut: What is read; of rotated keys and queries whole rotary pairs.
        denoising: The denoising step.
        prompt: Output of the text encoder with its padding, float32 [tokens, text_dim].
        condition: What a further condition adds to the modulation of every block, [1, 6, width].

    """

    def __init__(
        self,
        model: WanTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
        condition: Tensor | None = None,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, model.config.patch_size[1], cut, denoising)
        self.patch_embedding = model.patch_embedding
        with torch.no_grad():
            tokens, log_counts = merge_tokens(prompt)
            _, modulation, context, _ = model.condition_embedder(
                torch.tensor([denoising.timestep]), tokens[None]
            )
            modulation = modulation.unflatten(1, (6, -1))
            if condition is not None:
                modulation = modulation + condition
            cos, sin = model.rope(torch.empty(1, *latent_shape))
            rotary = RotaryTables(cos[..., ::2], sin[..., ::2])

            def block(source: WanTransformerBlock, newest: int) -> nn.Module:
                prompted = cross_attention(source.attn2, context, log_counts, head_norms=False)
                return _block(source, modulation, prompted, newest)

            self.blocks = self.build_blocks(model.blocks, block)
            chosen = model.blocks[cut.block]
            shift, scale, *_ = _modulation_of(chosen, modulation)
            norm1 = fold_modulation(chosen.norm1, scale, shift)
            tables = rotary.newest(self.newest)
            self.reading = read_out(norm1, chosen.attn1, cut, tables, head_norms=False)
        self.set_rotary(rotary)


def _block(
    block: WanTransformerBlock, modulation: Tensor, prompted: nn.Module, newest: int
) -> PromptedBlock:
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = _modulation_of(block, modulation)
    return PromptedBlock(
        self_attention=SelfAttention(block.attn1, head_norms=False),
        cross_attention=prompted,
        feed_forward=block.ffn,
        norms=(
            fold_modulation(block.norm1, scale, shift),
            block.norm2,
            fold_modulation(block.norm3, ffn_scale, ffn_shift),
        ),
        gates=(gate, None, ffn_gate),
        newest=newest,
    )


def _modulation_of(block: WanTransformerBlock, modulation: Tensor) -> tuple[Tensor, ...]:
    """Return shift, scale and gate [1, 1, width] of the attention, then of the feed-forward."""
    table: Tensor = block.scale_shift_table
    return (table + modulation).chunk(6, dim=1)
