"""The way from latents to descriptors through an LTX-Video transformer, and nothing else of it.

A diffusers ``LTXVideoTransformer3DModel`` is cut after the keys or queries of one block's
self-attention (HeFT, arXiv 2512.04619), or after the block. Everything that does not depend on the
latents is computed once, here, in FP32: noise, timestep modulation, the prompt's keys and values,
rotary tables.
"""

import math

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_ltx import LTXAttention, LTXVideoTransformerBlock
from torch import Tensor, nn

from vditrack_export.families.layers import Attend, Constant, by_head, last_tokens, rotate_pairs
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise
from vditrack_export.families.rotary import low_frequency_channels

PIPELINE_FRAME_RATE = 25
"""Frames a second that diffusers' ``LTXPipeline`` takes a clip to have."""

FRAMES_A_LATENT, PIXELS_A_LATENT = 8, 32
"""Of the autoencoder of LTX-Video, in time and along a side of the picture."""

ROTARY_SCALE = (FRAMES_A_LATENT / PIPELINE_FRAME_RATE, PIXELS_A_LATENT, PIXELS_A_LATENT)
"""Seconds, rows and columns of pixels from a latent to the next: the pipeline's positions."""


def ltx_channels(head_dim: int, frequency_range: tuple[float, float]) -> list[int]:
    """Channels of an LTX head between two fractions of its own rotary frequencies.

    LTX turns pairs of neighbouring channels, but the frequencies rise with the channel through the
    whole width, not head by head, and time, height and width take turns at each. A head so has a
    narrow band of frequencies, the higher the higher its number, and choosing it is most of the
    choice of frequencies. What is left is counted here, from the head's highest frequency: its
    last channels. The axes then lose equally many pairs, or one more.

    Raises:
        InputError: the range holds not even one pair of channels.

    """
    falling = low_frequency_channels((head_dim, 0, 0), frequency_range)
    return sorted(head_dim - 1 - channel for channel in falling)


def real_tokens(prompt: Tensor) -> Tensor:
    """Which rows of a prompt [tokens, text_dim] are no padding, bool [tokens].

    Padding is zero, since a text encoder gives no token that is; the first token is none.
    """
    real = prompt.any(dim=1)
    return real | (torch.arange(len(prompt)) == 0)


class LtxPath(nn.Module):
    """Keys, queries or hidden states of chosen heads and channels after one denoising step.

    Keys and queries are those after their norm. The prompt's padding is left out: the pipeline
    masks it in every attention, so that it has no weight.

    Args:
        model: the whole transformer, in FP32, whose patches are single latents; its submodules are
            shared, not copied.
        latent_shape: channels, frames, rows, columns of the latents.
        cut: what is read; of rotated keys and queries, whole rotary pairs. Earlier frames than
            those described only lend their keys and values to the last whole block, and cost
            nothing after it.
        denoising: the step.
        prompt: text encoder's output, float32 [tokens, text_dim], with zeros for its padding.

    """

    noise: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        model: LTXVideoTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> None:
        super().__init__()
        _, frames, rows, columns = latent_shape
        self.grid = (cut.described, rows, columns)
        self.newest = math.prod(self.grid)
        every = frames * rows * columns
        self.signal = denoising.signal
        noise = seeded_noise((1, *latent_shape), denoising.seed)
        self.register_buffer("noise", denoising.noise * noise)
        self.embedding = model.proj_in
        with torch.no_grad():
            modulation = _modulation(model, denoising.timestep)
            context = model.caption_projection(prompt[None, real_tokens(prompt)])
            cos, sin = _rotary_tables(model, latent_shape)
            # Hidden states are what the chosen block puts out, so it runs whole too.
            whole = cut.block + (cut.tensor == "hidden")
            self.blocks = nn.ModuleList(
                _Block(source, modulation, context, self.newest if index == whole - 1 else every)
                for index, source in enumerate(model.transformer_blocks[:whole])
            )
            tables = last_tokens(cos, self.newest), last_tokens(sin, self.newest)
            self.reading = _reading(model.transformer_blocks[cut.block], modulation, cut, tables)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        noised = self.signal * latents + self.noise
        tokens = self.embedding(noised.flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, self.cos, self.sin)
        read: Tensor = self.reading(last_tokens(tokens, self.newest))
        return read.reshape(*self.grid, -1)


class _Block(nn.Module):
    """A whole transformer block: tokens [1, N, width] to the newest of them, advanced."""

    attention_gate: Tensor
    feed_forward_gate: Tensor

    def __init__(
        self, block: LTXVideoTransformerBlock, modulation: Tensor, context: Tensor, newest: int
    ) -> None:
        super().__init__()
        self.newest = newest
        shift, scale, gate, ff_shift, ff_scale, ff_gate = _modulation_of(block, modulation)
        self.norm1 = _ModulatedNorm(block.norm1, scale, shift)
        self.self_attention = _SelfAttention(block.attn1)
        self.register_buffer("attention_gate", gate)
        self.cross_attention = _cross_attention(block.attn2, context)
        self.norm2 = _ModulatedNorm(block.norm2, ff_scale, ff_shift)
        self.feed_forward = block.ff
        self.register_buffer("feed_forward_gate", ff_gate)

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        attended = self.self_attention(self.norm1(tokens), cos, sin, self.newest)
        tokens = last_tokens(tokens, self.newest) + attended * self.attention_gate
        tokens = tokens + self.cross_attention(tokens)
        advanced: Tensor = self.feed_forward(self.norm2(tokens))
        return tokens + advanced * self.feed_forward_gate


class _ModulatedNorm(nn.Module):
    """A norm by the root of the mean square, norm(x) (1 + scale) + shift."""

    shift: Tensor

    def __init__(self, norm: RMSNorm, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(len(scale), norm.eps)
        self.norm.weight.copy_(1 + scale)
        self.register_buffer("shift", shift)

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens)
        return normed + self.shift


class _SelfAttention(nn.Module):
    def __init__(self, attention: LTXAttention) -> None:
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


def _cross_attention(attention: LTXAttention, context: Tensor) -> nn.Module:
    """Attention to the prompt, whose tokens [1, M, width] become constants."""
    if context.shape[1] == 1:
        # The softmax over a single token is 1, whatever the query.
        return Constant(attention.to_out[0](attention.to_v(context)))
    return _CrossAttention(attention, context)


class _CrossAttention(nn.Module):
    key: Tensor
    value: Tensor

    def __init__(self, attention: LTXAttention, context: Tensor) -> None:
        super().__init__()
        self.attend = Attend()
        self.heads = attention.heads
        self.to_q, self.norm_q = attention.to_q, attention.norm_q
        self.to_out = attention.to_out[0]
        self.register_buffer("key", by_head(attention.norm_k(attention.to_k(context)), self.heads))
        self.register_buffer("value", by_head(attention.to_v(context), self.heads))

    def forward(self, tokens: Tensor) -> Tensor:
        query = by_head(self.norm_q(self.to_q(tokens)), self.heads)
        out: Tensor = self.to_out(self.attend(query, self.key, self.value))
        return out


def _reading(
    block: LTXVideoTransformerBlock, modulation: Tensor, cut: Cut, rotary: tuple[Tensor, Tensor]
) -> nn.Module:
    """From tokens [1, N, width], before the chosen block or after it, to what is read of them."""
    kept, heads = torch.tensor(cut.channels), list(cut.heads)
    columns = torch.cat([head * block.attn1.head_dim + kept for head in heads])
    if cut.tensor == "hidden":
        return _Columns(columns)
    shift, scale, *_ = _modulation_of(block, modulation)
    norm1, attention = _ModulatedNorm(block.norm1, scale, shift), block.attn1
    # All heads are projected even for one: the norm takes its mean square over all of them.
    project, norm = (
        (attention.to_k, attention.norm_k)
        if cut.tensor == "keys"
        else (attention.to_q, attention.norm_q)
    )
    read = [norm1, project, norm, _Columns(columns)]
    if cut.rotated:
        read.append(_Rotated(*(table[:, :, heads][..., kept[::2] // 2] for table in rotary)))
    return nn.Sequential(*read)


class _Columns(nn.Module):
    """Chosen columns of the tokens, [1, N, width] to [1, N, D]."""

    columns: Tensor

    def __init__(self, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(-1, self.columns)


class _Rotated(nn.Module):
    """The rotary embedding of chosen channels, [1, N, D], by tables [1, N, heads, pairs]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        super().__init__()
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, projected: Tensor) -> Tensor:
        heads = by_head(projected, self.cos.shape[2])
        return rotate_pairs(heads, self.cos, self.sin).flatten(-2)


def _modulation(model: LTXVideoTransformer3DModel, timestep: float) -> Tensor:
    """What the timestep adds to the modulation of every block, [6, width]."""
    instant = torch.tensor([timestep])
    modulation, _ = model.time_embed(instant, batch_size=1, hidden_dtype=torch.float32)
    return torch.unflatten(modulation, 1, (6, -1))[0]


def _modulation_of(block: LTXVideoTransformerBlock, modulation: Tensor) -> tuple[Tensor, ...]:
    """Shift, scale and gate [width] of the attention, then of the feed-forward network."""
    table: Tensor = block.scale_shift_table
    return (table + modulation).unbind()


def _rotary_tables(
    model: LTXVideoTransformer3DModel, latent_shape: LatentShape
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every token's angles, one a pair of channels: [1, N, heads, pairs]."""
    heads = model.config.num_attention_heads
    cos, sin = model.rope(torch.empty(1), *latent_shape[1:], rope_interpolation_scale=ROTARY_SCALE)
    return by_head(cos[..., ::2], heads), by_head(sin[..., ::2], heads)
