"""The way from latents to descriptors through a Cosmos transformer, and nothing else of it.

A diffusers ``CosmosTransformer3DModel`` (Cosmos-Predict2 Video2World) is cut after the keys or
queries of one block's self-attention (HeFT, arXiv 2512.04619), or after the block. Everything that
does not depend on the latents is computed once, here, in FP32: noise, timestep modulation, the
prompt's keys and values, rotary tables.

No frame is conditioned. Video2World continues a clip: it is given the first frames without noise,
marks them in a channel of their own and has another timestep for them. A clip to be tracked has
nothing to be continued, and its frames are compared with each other, so all are treated alike: as
the frames that the pipeline denoises. Their timestep is then one constant. The channels that mark
conditioned frames and padding are zero, and their weights are left out.
"""

import math

import torch
from diffusers import CosmosTransformer3DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_cosmos import (
    CosmosAdaLayerNormZero,
    CosmosPatchEmbed,
    CosmosTransformerBlock,
)
from torch import Tensor, nn

from vditrack_export.families.layers import Attend, by_head, last_tokens, modulated
from vditrack_export.families.prompt_tokens import merge_tokens
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise

PIPELINE_FPS = 16.0
"""Frames a second that diffusers' ``Cosmos2VideoToWorldPipeline`` takes a clip to have."""

Timestep = tuple[Tensor, Tensor]
"""What blocks are told of it: its part of every modulation [1, 3 width], and its embedding."""


class CosmosPath(nn.Module):
    """Keys, queries or hidden states of chosen heads and channels after one denoising step.

    Keys and queries are those after their norm.

    Args:
        model: the whole transformer, in FP32, without learnable positions, image context or
            projection of the prompt; its submodules are shared, not copied.
        latent_shape: channels, frames, rows, columns of the latents, without those of the masks.
        cut: what is read. Earlier frames than those described only lend their keys and values to
            the last whole block, and cost nothing after it.
        denoising: the step. The pipeline scales what it denoises: with sigma of its scheduler,
            timestep and noise are sigma / (1 + sigma), and signal is 1 / (1 + sigma).
        prompt: text encoder's output, float32 [tokens, text_dim], with its padding.
        fps: frames a second, by which the rotary embedding scales time.

    """

    noise: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        model: CosmosTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
        fps: float = PIPELINE_FPS,
    ) -> None:
        super().__init__()
        channels, frames, rows, columns = latent_shape
        _, patch_rows, patch_columns = model.config.patch_size
        self.grid = (cut.described, rows // patch_rows, columns // patch_columns)
        self.newest = math.prod(self.grid)
        every = frames * self.newest // cut.described
        self.signal = denoising.signal
        noise = seeded_noise((1, *latent_shape), denoising.seed)
        self.register_buffer("noise", denoising.noise * noise)
        with torch.no_grad():
            self.patch_embedding = _patch_embedding(model.patch_embed, channels)
            timestep = model.time_embed(prompt, torch.tensor([denoising.timestep]))
            context, log_counts = merge_tokens(prompt)
            cos, sin = _rotary_tables(model, latent_shape, fps)
            # Hidden states are what the chosen block puts out, so it runs whole too.
            whole = cut.block + (cut.tensor == "hidden")
            self.blocks = nn.ModuleList(
                _Block(
                    source,
                    timestep,
                    _CrossAttention(source.attn2, context, log_counts),
                    self.newest if index == whole - 1 else every,
                )
                for index, source in enumerate(model.transformer_blocks[:whole])
            )
            tables = last_tokens(cos, self.newest), last_tokens(sin, self.newest)
            chosen = model.transformer_blocks[cut.block]
            self.reading = (
                _Hidden(model.config.attention_head_dim, cut)
                if cut.tensor == "hidden"
                else _Projected(chosen, timestep, cut, tables)
            )
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
    prompt_gate: Tensor
    feed_forward_gate: Tensor

    def __init__(
        self,
        block: CosmosTransformerBlock,
        timestep: Timestep,
        cross_attention: nn.Module,
        newest: int,
    ) -> None:
        super().__init__()
        self.newest = newest
        self.norm1, attention_gate = _constant_norm(block.norm1, timestep)
        self.self_attention = _SelfAttention(block.attn1)
        self.register_buffer("attention_gate", attention_gate)
        self.norm2, prompt_gate = _constant_norm(block.norm2, timestep)
        self.cross_attention = cross_attention
        self.register_buffer("prompt_gate", prompt_gate)
        self.norm3, feed_forward_gate = _constant_norm(block.norm3, timestep)
        self.feed_forward = block.ff
        self.register_buffer("feed_forward_gate", feed_forward_gate)

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        attended = self.self_attention(self.norm1(tokens), cos, sin, self.newest)
        tokens = last_tokens(tokens, self.newest) + attended * self.attention_gate
        tokens = tokens + self.cross_attention(self.norm2(tokens)) * self.prompt_gate
        advanced: Tensor = self.feed_forward(self.norm3(tokens))
        return tokens + advanced * self.feed_forward_gate


class _SelfAttention(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attend = Attend()
        self.heads = attention.heads
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.norm_q, self.norm_k = attention.norm_q, attention.norm_k
        self.to_out = attention.to_out[0]

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor, newest: int) -> Tensor:
        asking = self.norm_q(by_head(self.to_q(last_tokens(tokens, newest)), self.heads))
        query = _rotate_halves(asking, last_tokens(cos, newest), last_tokens(sin, newest))
        key = _rotate_halves(self.norm_k(by_head(self.to_k(tokens), self.heads)), cos, sin)
        value = by_head(self.to_v(tokens), self.heads)
        out: Tensor = self.to_out(self.attend(query, key, value))
        return out


class _CrossAttention(nn.Module):
    """Attention to the prompt, whose merged tokens [M, text_dim] become constants."""

    key: Tensor
    value: Tensor
    log_counts: Tensor | None

    def __init__(self, attention: Attention, context: Tensor, log_counts: Tensor) -> None:
        super().__init__()
        self.attend = Attend()
        self.heads = attention.heads
        self.to_q, self.norm_q = attention.to_q, attention.norm_q
        self.to_out = attention.to_out[0]
        key = attention.norm_k(by_head(attention.to_k(context[None]), self.heads))
        self.register_buffer("key", key)
        self.register_buffer("value", by_head(attention.to_v(context[None]), self.heads))
        self.register_buffer("log_counts", log_counts if log_counts.any() else None)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.norm_q(by_head(self.to_q(tokens), self.heads))
        attended = self.attend(query, self.key, self.value, self.log_counts)
        out: Tensor = self.to_out(attended)
        return out


class _Projected(nn.Module):
    """What a block's keys or queries need of it: tokens [1, N, width] to [1, N, D]."""

    channels: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        block: CosmosTransformerBlock,
        timestep: Timestep,
        cut: Cut,
        rotary: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        self.norm1, _ = _constant_norm(block.norm1, timestep)
        attention = block.attn1
        whole, self.norm = (
            (attention.to_k, attention.norm_k)
            if cut.tensor == "keys"
            else (attention.to_q, attention.norm_q)
        )
        # The norm takes its mean square over each head alone, so no other head is projected.
        rows = whole.weight.unflatten(0, (attention.heads, -1))[list(cut.heads)].flatten(0, 1)
        self.heads = len(cut.heads)
        self.project = nn.Linear(whole.in_features, len(rows), bias=False)
        self.project.weight.copy_(rows)
        self.rotated = cut.rotated
        for name, table in zip(("cos", "sin"), rotary, strict=True):
            self.register_buffer(name, table)
        self.register_buffer("channels", torch.tensor(cut.channels))

    def forward(self, tokens: Tensor) -> Tensor:
        heads: Tensor = self.norm(by_head(self.project(self.norm1(tokens)), self.heads))
        if self.rotated:
            heads = _rotate_halves(heads, self.cos, self.sin)
        return heads.index_select(-1, self.channels).flatten(-2)


class _Hidden(nn.Module):
    """Chosen parts of the tokens: [1, N, width] to [1, N, D]."""

    columns: Tensor

    def __init__(self, head_dim: int, cut: Cut) -> None:
        super().__init__()
        first = head_dim * torch.tensor(cut.heads)[:, None]
        self.register_buffer("columns", (first + torch.tensor(cut.channels)).flatten())

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(-1, self.columns)


def _rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + channels / 2) of [1, N, heads, channels] by their angles."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def _constant_norm(norm: CosmosAdaLayerNormZero, timestep: Timestep) -> tuple[nn.LayerNorm, Tensor]:
    """Fold the timestep into a block's norm; also the gate [1, width] of what comes after it."""
    modulation, embedded = timestep
    own = norm.linear_2(norm.linear_1(norm.activation(embedded)))
    shift, scale, gate = (own + modulation).chunk(3, dim=-1)
    return modulated(norm.norm, scale, shift), gate


def _patch_embedding(embed: CosmosPatchEmbed, channels: int) -> nn.Conv3d:
    """Embed patches of the latents alone: the masks' channels, which come after them, are zero."""
    weight = embed.proj.weight.unflatten(1, (-1, *embed.patch_size))[:, :channels]
    embedding = nn.Conv3d(
        channels, len(weight), embed.patch_size, stride=embed.patch_size, bias=False
    )
    embedding.weight.copy_(weight)
    return embedding


def _rotary_tables(
    model: CosmosTransformer3DModel, latent_shape: LatentShape, fps: float
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every token's angles, one a pair of channels: [1, N, 1, pairs]."""
    cos, sin = (
        table.chunk(2, dim=-1)[0][None, :, None]
        for table in model.rope(torch.empty(1, *latent_shape), fps=fps)
    )
    return cos, sin
