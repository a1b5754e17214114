"""The way from latents to keys through a Wan transformer, and nothing else of it.

A diffusers ``WanTransformer3DModel`` is cut after the keys of one block's self-attention (HeFT,
arXiv 2512.04619). Everything that does not depend on the latents is computed once, here, in FP32:
noise, timestep modulation, the prompt's keys and values, rotary tables.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformerBlock
from torch import Tensor, nn

LatentShape = tuple[int, int, int, int]
"""Channels, frames, rows and columns of the latents."""


def seeded_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal noise, float32, the same on every machine for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class WanKeys(nn.Module):
    """Post-norm, post-rotary keys of chosen heads and channels after one denoising step.

    Args:
        model: the whole transformer, in FP32; its submodules are shared, not copied.
        latent_shape: channels, frames, rows, columns of the latents, one latent a frame.
        block: block whose self-attention keys are read, from 0.
        heads: heads of that block, in the order wanted.
        channels: channels kept of each head, whole rotary pairs in rising order.
        prompt: text encoder's output, float32 [tokens, text_dim].
        timestep: what the transformer is told of the noise.
        noise_level: sigma of the flow-matching mixture (1 - sigma) latents + sigma noise.
        noise_seed: seed of that noise.
        described: frames at the end of the window whose keys are read. Earlier frames only lend
            their keys and values to the last whole block, and cost nothing after it.

    """

    noise: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        model: WanTransformer3DModel,
        latent_shape: LatentShape,
        *,
        block: int,
        heads: Sequence[int],
        channels: Sequence[int],
        prompt: Tensor,
        timestep: float,
        noise_level: float,
        noise_seed: int,
        described: int,
    ) -> None:
        super().__init__()
        _, frames, rows, columns = latent_shape
        _, patch_rows, patch_columns = model.config.patch_size
        self.grid = (described, rows // patch_rows, columns // patch_columns)
        self.newest = math.prod(self.grid)
        every = frames * self.newest // described
        self.signal_level = 1 - noise_level
        self.register_buffer("noise", noise_level * seeded_noise((1, *latent_shape), noise_seed))
        self.patch_embedding = model.patch_embedding
        with torch.no_grad():
            modulation, context = _conditions(model, timestep, prompt)
            cos, sin = _rotary_tables(model, latent_shape)
            self.blocks = nn.ModuleList(
                _Block(source, modulation, context, self.newest if index == block - 1 else every)
                for index, source in enumerate(model.blocks[:block])
            )
            tables = _newest(cos, self.newest), _newest(sin, self.newest)
            self.keys = _Keys(model.blocks[block], modulation, heads, channels, tables)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        noised = self.signal_level * latents + self.noise
        tokens = self.patch_embedding(noised).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, self.cos, self.sin)
        keys: Tensor = self.keys(_newest(tokens, self.newest))
        return keys.reshape(*self.grid, -1)


class _Block(nn.Module):
    """A whole transformer block: tokens [1, N, width] to the newest of them, advanced."""

    attention_gate: Tensor
    feed_forward_gate: Tensor

    def __init__(
        self, block: WanTransformerBlock, modulation: Tensor, context: Tensor, newest: int
    ) -> None:
        super().__init__()
        self.newest = newest
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = _modulation_of(block, modulation)
        self.norm1 = _modulated(block.norm1, scale, shift)
        self.self_attention = _SelfAttention(block.attn1)
        self.register_buffer("attention_gate", gate)
        self.norm2 = block.norm2
        self.cross_attention = _cross_attention(block.attn2, context)
        self.norm3 = _modulated(block.norm3, ffn_scale, ffn_shift)
        self.feed_forward = block.ffn
        self.register_buffer("feed_forward_gate", ffn_gate)

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        attended = self.self_attention(self.norm1(tokens), cos, sin, self.newest)
        tokens = _newest(tokens, self.newest) + attended * self.attention_gate
        tokens = tokens + self.cross_attention(self.norm2(tokens))
        advanced: Tensor = self.feed_forward(self.norm3(tokens))
        return tokens + advanced * self.feed_forward_gate


class _Keys(nn.Module):
    """The part of the last block that its keys need: tokens [1, N, width] to [1, N, D]."""

    columns: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        block: WanTransformerBlock,
        modulation: Tensor,
        heads: Sequence[int],
        channels: Sequence[int],
        rotary: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        shift, scale, *_ = _modulation_of(block, modulation)
        self.norm1 = _modulated(block.norm1, scale, shift)
        # All heads are projected even for one: norm_k takes its mean square over all of them.
        self.to_k, self.norm_k = block.attn1.to_k, block.attn1.norm_k
        self.heads = len(heads)
        kept = torch.tensor(channels)
        head_dim = block.attn1.inner_dim // block.attn1.heads
        self.register_buffer("columns", torch.cat([head * head_dim + kept for head in heads]))
        for name, table in zip(("cos", "sin"), rotary, strict=True):
            self.register_buffer(name, table[..., kept[::2] // 2])

    def forward(self, tokens: Tensor) -> Tensor:
        keys = self.norm_k(self.to_k(self.norm1(tokens))).index_select(-1, self.columns)
        return _rotate(_by_head(keys, self.heads), self.cos, self.sin).flatten(-2)


class _SelfAttention(nn.Module):
    def __init__(self, attention: WanAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.norm_q, self.norm_k = attention.norm_q, attention.norm_k
        self.to_out = attention.to_out[0]

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor, newest: int) -> Tensor:
        asking = self.norm_q(self.to_q(_newest(tokens, newest)))
        query = _rotate(_by_head(asking, self.heads), _newest(cos, newest), _newest(sin, newest))
        key = _rotate(_by_head(self.norm_k(self.to_k(tokens)), self.heads), cos, sin)
        value = _by_head(self.to_v(tokens), self.heads)
        out: Tensor = self.to_out(_attend(query, key, value))
        return out


def _cross_attention(attention: WanAttention, context: Tensor) -> nn.Module:
    """Attention to the prompt: context float32 [1, tokens, width] becomes a constant."""
    value = attention.to_v(context)
    if context.shape[1] == 1:
        # The softmax over a single token is 1, whatever the query.
        return _Constant(attention.to_out[0](value))
    return _CrossAttention(attention, attention.norm_k(attention.to_k(context)), value)


class _Constant(nn.Module):
    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, _tokens: Tensor) -> Tensor:
        return self.value


class _CrossAttention(nn.Module):
    key: Tensor
    value: Tensor

    def __init__(self, attention: WanAttention, key: Tensor, value: Tensor) -> None:
        super().__init__()
        self.heads = attention.heads
        self.to_q, self.norm_q = attention.to_q, attention.norm_q
        self.to_out = attention.to_out[0]
        self.register_buffer("key", _by_head(key, self.heads))
        self.register_buffer("value", _by_head(value, self.heads))

    def forward(self, tokens: Tensor) -> Tensor:
        query = _by_head(self.norm_q(self.to_q(tokens)), self.heads)
        out: Tensor = self.to_out(_attend(query, self.key, self.value))
        return out


def _conditions(
    model: WanTransformer3DModel, timestep: float, prompt: Tensor
) -> tuple[Tensor, Tensor]:
    """Timestep modulation [1, 6, width] and the prompt in the transformer's width."""
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


def _modulated(norm: nn.LayerNorm, scale: Tensor, shift: Tensor) -> nn.LayerNorm:
    """Fold a constant modulation, norm(x) (1 + scale) + shift, into the norm's own weights."""
    folded = nn.LayerNorm(norm.normalized_shape, norm.eps)
    folded.weight.copy_(1 + scale.flatten())
    folded.bias.copy_(shift.flatten())
    return folded


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (2i, 2i + 1) of [1, N, heads, channels] by their angles."""
    even, odd = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def _newest(x: Tensor, count: int) -> Tensor:
    """Of [1, N, ...], the last ``count`` along N: tokens go frame by frame."""
    return x if x.shape[1] == count else x[:, -count:]


def _by_head(x: Tensor, heads: int) -> Tensor:
    return torch.unflatten(x, -1, (heads, -1))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of [1, N, heads, channels] to [1, M, heads, channels], heads joined again."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)
