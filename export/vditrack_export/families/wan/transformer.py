"""The way from latents to descriptors through a Wan transformer, and nothing else of it.

A diffusers ``WanTransformer3DModel`` (Wan2.1-T2V, Wan2.2-T2V and Wan2.2-TI2V) is cut after the keys
or queries of one block's self-attention (HeFT, arXiv 2512.04619), or after the block. Everything
that does not depend on the latents is computed once, here, in FP32: noise, timestep modulation, the
prompt's keys and values, rotary tables.
"""

import math

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformerBlock
from torch import Tensor, nn

from vditrack_export.families.layers import (
    Attend,
    Constant,
    by_head,
    last_tokens,
    modulated,
    rotate_pairs,
)
from vditrack_export.families.prompt_tokens import merge_tokens
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, TensorName, seeded_noise


class WanKeys(nn.Module):
    """Keys, queries or hidden states of chosen heads and channels after one denoising step.

    Keys and queries are those after their norm. All tokens have the same timestep: Wan2.2-TI2V,
    which takes one a token, then gives what it gives for a single one.

    Args:
        model: the whole transformer, in FP32, without image conditions; its submodules are shared,
            not copied.
        latent_shape: channels, frames, rows, columns of the latents.
        cut: what is read; of rotated keys and queries, whole rotary pairs. Earlier frames than
            those described only lend their keys and values to the last whole block, and cost
            nothing after it.
        denoising: the step.
        prompt: text encoder's output, float32 [tokens, text_dim], with its padding.

    """

    noise: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        model: WanTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> None:
        super().__init__()
        _, frames, rows, columns = latent_shape
        _, patch_rows, patch_columns = model.config.patch_size
        self.grid = (cut.described, rows // patch_rows, columns // patch_columns)
        self.newest = math.prod(self.grid)
        every = frames * self.newest // cut.described
        self.signal = denoising.signal
        noise = seeded_noise((1, *latent_shape), denoising.seed)
        self.register_buffer("noise", denoising.noise * noise)
        self.patch_embedding = model.patch_embedding
        with torch.no_grad():
            tokens, log_counts = merge_tokens(prompt)
            modulation, context = _conditions(model, denoising.timestep, tokens)
            cos, sin = _rotary_tables(model, latent_shape)
            # Hidden states are what the chosen block puts out, so it runs whole too.
            whole = cut.block + (cut.tensor == "hidden")
            self.blocks = nn.ModuleList(
                _Block(
                    source,
                    modulation,
                    _cross_attention(source.attn2, context, log_counts),
                    self.newest if index == whole - 1 else every,
                )
                for index, source in enumerate(model.blocks[:whole])
            )
            tables = last_tokens(cos, self.newest), last_tokens(sin, self.newest)
            self.reading = _reading(model.blocks[cut.block], modulation, cut, tables)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        noised = self.signal * latents + self.noise
        tokens = self.patch_embedding(noised).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, self.cos, self.sin)
        read: Tensor = self.reading(last_tokens(tokens, self.newest))
        return read.reshape(*self.grid, -1)


class _Block(nn.Module):
    """A whole transformer block: tokens [1, N, width] to the newest of them, advanced."""

    attention_gate: Tensor
    feed_forward_gate: Tensor

    def __init__(
        self,
        block: WanTransformerBlock,
        modulation: Tensor,
        cross_attention: nn.Module,
        newest: int,
    ) -> None:
        super().__init__()
        self.newest = newest
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = _modulation_of(block, modulation)
        self.norm1 = modulated(block.norm1, scale, shift)
        self.self_attention = _SelfAttention(block.attn1)
        self.register_buffer("attention_gate", gate)
        self.norm2 = block.norm2
        self.cross_attention = cross_attention
        self.norm3 = modulated(block.norm3, ffn_scale, ffn_shift)
        self.feed_forward = block.ffn
        self.register_buffer("feed_forward_gate", ffn_gate)

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        attended = self.self_attention(self.norm1(tokens), cos, sin, self.newest)
        tokens = last_tokens(tokens, self.newest) + attended * self.attention_gate
        tokens = tokens + self.cross_attention(self.norm2(tokens))
        advanced: Tensor = self.feed_forward(self.norm3(tokens))
        return tokens + advanced * self.feed_forward_gate


def _reading(
    block: WanTransformerBlock, modulation: Tensor, cut: Cut, rotary: tuple[Tensor, Tensor]
) -> nn.Module:
    """From tokens [1, N, width], before the chosen block or after it, to what is read of them."""
    kept = torch.tensor(cut.channels)
    head_dim = block.attn1.inner_dim // block.attn1.heads
    columns = torch.cat([head * head_dim + kept for head in cut.heads])
    if cut.tensor == "hidden":
        return _Columns(columns)
    projected = _Projected(block, modulation, cut.tensor, columns)
    if not cut.rotated:
        return projected
    cos, sin = (table[..., kept[::2] // 2] for table in rotary)
    return nn.Sequential(projected, _Rotated(len(cut.heads), cos, sin))


class _Columns(nn.Module):
    """Chosen columns of the tokens, [1, N, width] to [1, N, D]."""

    columns: Tensor

    def __init__(self, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(-1, self.columns)


class _Projected(nn.Module):
    """The part of a block that its keys or queries need: tokens [1, N, width] to [1, N, D]."""

    columns: Tensor

    def __init__(
        self, block: WanTransformerBlock, modulation: Tensor, tensor: TensorName, columns: Tensor
    ) -> None:
        super().__init__()
        shift, scale, *_ = _modulation_of(block, modulation)
        self.norm1 = modulated(block.norm1, scale, shift)
        attention = block.attn1
        # All heads are projected even for one: the norm takes its mean square over all of them.
        self.project, self.norm = (
            (attention.to_k, attention.norm_k)
            if tensor == "keys"
            else (attention.to_q, attention.norm_q)
        )
        self.register_buffer("columns", columns)

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.project(self.norm1(tokens)))
        return normed.index_select(-1, self.columns)


class _Rotated(nn.Module):
    """The rotary embedding of chosen channels, [1, N, D], head by head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, heads: int, cos: Tensor, sin: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, projected: Tensor) -> Tensor:
        return rotate_pairs(by_head(projected, self.heads), self.cos, self.sin).flatten(-2)


class _SelfAttention(nn.Module):
    def __init__(self, attention: WanAttention) -> None:
        super().__init__()
        self.attend = Attend()
        self.heads = attention.heads
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.norm_q, self.norm_k = attention.norm_q, attention.norm_k
        self.to_out = attention.to_out[0]

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor, newest: int) -> Tensor:
        asking = self.norm_q(self.to_q(last_tokens(tokens, newest)))
        query = rotate_pairs(
            by_head(asking, self.heads), last_tokens(cos, newest), last_tokens(sin, newest)
        )
        key = rotate_pairs(by_head(self.norm_k(self.to_k(tokens)), self.heads), cos, sin)
        value = by_head(self.to_v(tokens), self.heads)
        out: Tensor = self.to_out(self.attend(query, key, value))
        return out


def _cross_attention(attention: WanAttention, context: Tensor, log_counts: Tensor) -> nn.Module:
    """Attention to the prompt: merged tokens, float32 [1, M, width], become constants."""
    value = attention.to_v(context)
    if len(log_counts) == 1:
        # The softmax over a single token is 1, whatever the query.
        return Constant(attention.to_out[0](value))
    key = attention.norm_k(attention.to_k(context))
    return _CrossAttention(attention, key, value, log_counts if log_counts.any() else None)


class _CrossAttention(nn.Module):
    key: Tensor
    value: Tensor
    log_counts: Tensor | None

    def __init__(
        self, attention: WanAttention, key: Tensor, value: Tensor, log_counts: Tensor | None
    ) -> None:
        super().__init__()
        self.attend = Attend()
        self.heads = attention.heads
        self.to_q, self.norm_q = attention.to_q, attention.norm_q
        self.to_out = attention.to_out[0]
        self.register_buffer("key", by_head(key, self.heads))
        self.register_buffer("value", by_head(value, self.heads))
        self.register_buffer("log_counts", log_counts)

    def forward(self, tokens: Tensor) -> Tensor:
        query = by_head(self.norm_q(self.to_q(tokens)), self.heads)
        attended = self.attend(query, self.key, self.value, self.log_counts)
        out: Tensor = self.to_out(attended)
        return out


def _conditions(
    model: WanTransformer3DModel, timestep: float, prompt: Tensor
) -> tuple[Tensor, Tensor]:
    """Timestep modulation [1, 6, width] and the prompt, [1, tokens, width]."""
    _, modulation, context, _ = model.condition_embedder(torch.tensor([timestep]), prompt[None])
    return modulation.unflatten(1, (6, -1)), context


def _rotary_tables(
    model: WanTransformer3DModel, latent_shape: LatentShape
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every token's angles, one a pair of channels: [1, N, 1, pairs]."""
    cos, sin = model.rope(torch.empty(1, *latent_shape))
    return cos[..., ::2], sin[..., ::2]


def _modulation_of(block: WanTransformerBlock, modulation: Tensor) -> tuple[Tensor, ...]:
    """Shift, scale and gate [1, 1, width] of the attention, then of the feed-forward network."""
    table: Tensor = block.scale_shift_table
    return (table + modulation).chunk(6, dim=1)
