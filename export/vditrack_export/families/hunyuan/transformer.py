"""The way from latents to descriptors through a HunyuanVideo transformer, and nothing else of it.

A diffusers ``HunyuanVideoTransformer3DModel`` is cut inside or after one of its double-stream
blocks (DiffTrack, arXiv 2506.17220; HeFT, arXiv 2512.04619). Everything that does not depend on the
latents is computed once, here, in FP32: noise, modulation by timestep, guidance and pooled prompt,
refined text tokens, rotary tables. The text tokens then go from block to block beside the video's,
with weights of their own, and do depend on the latents after the first.
"""

import math
from dataclasses import dataclass

import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.models.normalization import AdaLayerNormZero
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformerBlock
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.families.layers import Attend, by_head, last_tokens, modulated, rotate_pairs
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise
from vditrack_export.families.rotary import RotaryAxes

PIPELINE_GUIDANCE = 6000.0
"""Guidance that diffusers' ``HunyuanVideoPipeline`` gives: its default scale of 6, times 1000."""


def hunyuan_rotary_axes(head_dim: int) -> RotaryAxes:
    """Channels of a HunyuanVideo head that rotate with time, height and width, in that order.

    Channels 2i and 2i + 1 of an axis turn together, the more slowly the higher i.
    """
    side = 2 * (7 * head_dim // 32)
    return head_dim - 2 * side, side, side


@dataclass(frozen=True)
class HunyuanPrompt:
    """What HunyuanVideo's two text encoders give for a prompt.

    As one tensor, [1 + tokens, text_dim], the pooled prompt comes first, filled up with zeros.
    """

    tokens: Tensor
    """By Llama, float32 [tokens, text_dim]; zeros where there is only padding."""
    pooled: Tensor
    """By CLIP, float32 [pooled_dim], which is at most text_dim."""

    @property
    def mask(self) -> Tensor:
        """Whether each token is more than padding, bool [tokens]."""
        return self.tokens.any(dim=1)

    def packed(self) -> Tensor:
        """Return both as one tensor."""
        first = self.pooled.new_zeros(1, self.tokens.shape[1])
        first[0, : len(self.pooled)] = self.pooled
        return torch.cat((first, self.tokens))


def unpack_prompt(packed: Tensor, pooled_dim: int) -> HunyuanPrompt:
    """Undo `HunyuanPrompt.packed`."""
    return HunyuanPrompt(packed[1:], packed[0, :pooled_dim])


class HunyuanVideoPath(nn.Module):
    """Descriptors read of one double-stream block after one denoising step.

    Args:
        model: the whole transformer, in FP32, without image conditions; its submodules are shared,
            not copied.
        latent_shape: channels, frames, rows, columns of the latents.
        cut: what is read; whole rotary pairs where it is rotated. Earlier frames than those
            described only lend keys and values to the last whole block, as does the text.
        denoising: the step.
        prompt: a `HunyuanPrompt` as one tensor, float32 [1 + tokens, text_dim]. Its padding is left
            out: the model masks it.
        guidance: scale of the distilled guidance, times 1000; not used by a model without.

    Raises:
        InputError: all of the prompt is padding.

    """

    noise: Tensor
    text: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        model: HunyuanVideoTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
        guidance: float = PIPELINE_GUIDANCE,
    ) -> None:
        super().__init__()
        _, frames, rows, columns = latent_shape
        side = model.config.patch_size
        self.grid = (cut.described, rows // side, columns // side)
        self.newest = math.prod(self.grid)
        every = frames * self.newest // cut.described
        self.signal = denoising.signal
        noise = seeded_noise((1, *latent_shape), denoising.seed)
        self.register_buffer("noise", denoising.noise * noise)
        self.patch_embedding = model.x_embedder.proj
        # Hidden states are what the chosen block puts out, so it runs whole too.
        whole = cut.block + (cut.tensor == "hidden")
        with torch.no_grad():
            given = unpack_prompt(prompt, model.config.pooled_projection_dim)
            conditioning, text = _conditions(model, denoising.timestep, guidance, given)
            cos, sin = _rotary_tables(model, latent_shape)
            self.blocks = nn.ModuleList(
                _Block(source, conditioning, every)
                if index < whole - 1
                else _Block(source, conditioning, self.newest, last=True)
                for index, source in enumerate(model.transformer_blocks[:whole])
            )
            tables = last_tokens(cos, self.newest), last_tokens(sin, self.newest)
            self.reading = (
                _Hidden(model.config.attention_head_dim, cut)
                if cut.tensor == "hidden"
                else _Projected(model.transformer_blocks[cut.block], conditioning, cut, tables)
            )
        for name, constant in (("text", text), ("cos", cos), ("sin", sin)):
            self.register_buffer(name, constant)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        noised = self.signal * latents + self.noise
        video, text = self.patch_embedding(noised).flatten(2).transpose(1, 2), self.text
        for block in self.blocks:
            video, text = block(video, text, self.cos, self.sin)
        read: Tensor = self.reading(last_tokens(video, self.newest))
        return read.reshape(*self.grid, -1)


@dataclass(frozen=True)
class _Parts:
    """What the tokens of one stream go through in a block."""

    heads: int
    norm1: AdaLayerNormZero
    to_q: nn.Linear
    to_k: nn.Linear
    to_v: nn.Linear
    norm_q: nn.Module
    norm_k: nn.Module
    to_out: nn.Linear
    norm2: nn.LayerNorm
    feed_forward: nn.Module


def _video_parts(block: HunyuanVideoTransformerBlock) -> _Parts:
    attention = block.attn
    return _Parts(
        heads=attention.heads,
        norm1=block.norm1,
        to_q=attention.to_q,
        to_k=attention.to_k,
        to_v=attention.to_v,
        norm_q=attention.norm_q,
        norm_k=attention.norm_k,
        to_out=attention.to_out[0],
        norm2=block.norm2,
        feed_forward=block.ff,
    )


def _text_parts(block: HunyuanVideoTransformerBlock) -> _Parts:
    attention = block.attn
    return _Parts(
        heads=attention.heads,
        norm1=block.norm1_context,
        to_q=attention.add_q_proj,
        to_k=attention.add_k_proj,
        to_v=attention.add_v_proj,
        norm_q=attention.norm_added_q,
        norm_k=attention.norm_added_k,
        to_out=attention.to_add_out,
        norm2=block.norm2_context,
        feed_forward=block.ff_context,
    )


class _Lending(nn.Module):
    """A stream that only lends keys and values: normed tokens [1, N, width] to heads."""

    def __init__(self, parts: _Parts, conditioning: Tensor) -> None:
        super().__init__()
        self.heads = parts.heads
        shift, scale, *_ = _modulation_of(parts.norm1, conditioning)
        self.norm1 = modulated(parts.norm1.norm, scale, shift)
        self.to_k, self.norm_k, self.to_v = parts.to_k, parts.norm_k, parts.to_v

    def key(self, normed: Tensor) -> Tensor:
        key: Tensor = self.norm_k(by_head(self.to_k(normed), self.heads))
        return key

    def value(self, normed: Tensor) -> Tensor:
        return by_head(self.to_v(normed), self.heads)


class _Advancing(_Lending):
    """A stream that asks too, and goes on to the next block."""

    attention_gate: Tensor
    feed_forward_gate: Tensor

    def __init__(self, parts: _Parts, conditioning: Tensor) -> None:
        super().__init__(parts, conditioning)
        _, _, gate, shift, scale, ffn_gate = _modulation_of(parts.norm1, conditioning)
        self.to_q, self.norm_q, self.to_out = parts.to_q, parts.norm_q, parts.to_out
        self.register_buffer("attention_gate", gate)
        self.norm2 = modulated(parts.norm2, scale, shift)
        self.feed_forward = parts.feed_forward
        self.register_buffer("feed_forward_gate", ffn_gate)

    def query(self, normed: Tensor) -> Tensor:
        query: Tensor = self.norm_q(by_head(self.to_q(normed), self.heads))
        return query

    def advance(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + self.to_out(attended) * self.attention_gate
        advanced: Tensor = self.feed_forward(self.norm2(tokens))
        return tokens + advanced * self.feed_forward_gate


class _Block(nn.Module):
    """A whole double-stream block: both streams, [1, N, width] each, to the newest of the video.

    In the last block the text stays as it was: nobody asks for it any more.
    """

    def __init__(
        self,
        block: HunyuanVideoTransformerBlock,
        conditioning: Tensor,
        newest: int,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.newest = newest
        self.video = _Advancing(_video_parts(block), conditioning)
        self.text = (_Lending if last else _Advancing)(_text_parts(block), conditioning)
        self.attend = Attend()

    def forward(
        self, video: Tensor, text: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        normed, text_normed = self.video.norm1(video), self.text.norm1(text)
        asking = self.video.query(last_tokens(normed, self.newest))
        query = rotate_pairs(asking, last_tokens(cos, self.newest), last_tokens(sin, self.newest))
        if isinstance(self.text, _Advancing):
            query = torch.cat((query, self.text.query(text_normed)), dim=1)
        key = rotate_pairs(self.video.key(normed), cos, sin)
        key = torch.cat((key, self.text.key(text_normed)), dim=1)
        value = torch.cat((self.video.value(normed), self.text.value(text_normed)), dim=1)
        attended = self.attend(query, key, value)
        video = self.video.advance(last_tokens(video, self.newest), attended[:, : self.newest])
        if isinstance(self.text, _Advancing):
            text = self.text.advance(text, attended[:, self.newest :])
        return video, text


class _Projected(nn.Module):
    """The part of a block that its keys or queries need: tokens [1, N, width] to [1, N, D]."""

    channels: Tensor
    cos: Tensor | None
    sin: Tensor | None

    def __init__(
        self,
        block: HunyuanVideoTransformerBlock,
        conditioning: Tensor,
        cut: Cut,
        rotary: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        parts = _video_parts(block)
        shift, scale, *_ = _modulation_of(parts.norm1, conditioning)
        self.norm1 = modulated(parts.norm1.norm, scale, shift)
        whole, self.norm = (
            (parts.to_k, parts.norm_k) if cut.tensor == "keys" else (parts.to_q, parts.norm_q)
        )
        self.heads = len(cut.heads)
        self.project = _of_heads(whole, parts.heads, cut.heads)
        self.register_buffer("channels", torch.tensor(cut.channels))
        pairs = torch.tensor(cut.channels[::2]) // 2
        for name, table in zip(("cos", "sin"), rotary, strict=True):
            self.register_buffer(name, table[..., pairs] if cut.rotated else None)

    def forward(self, tokens: Tensor) -> Tensor:
        heads: Tensor = self.norm(by_head(self.project(self.norm1(tokens)), self.heads))
        chosen = heads.index_select(-1, self.channels)
        if self.cos is not None and self.sin is not None:
            chosen = rotate_pairs(chosen, self.cos, self.sin)
        return chosen.flatten(-2)


class _Hidden(nn.Module):
    """Chosen columns of hidden states: [1, N, width] to [1, N, D]."""

    columns: Tensor

    def __init__(self, head_dim: int, cut: Cut) -> None:
        super().__init__()
        first = head_dim * torch.tensor(cut.heads)[:, None]
        self.register_buffer("columns", (first + torch.tensor(cut.channels)).flatten())

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(-1, self.columns)


def _conditions(
    model: HunyuanVideoTransformer3DModel, timestep: float, guidance: float, prompt: HunyuanPrompt
) -> tuple[Tensor, Tensor]:
    """What modulates every block, [1, width], and the refined text tokens, [1, tokens, width]."""
    # Padding is a key to no other token, neither in the refiner nor in the blocks.
    tokens = prompt.tokens[prompt.mask]
    if len(tokens) == 0:
        raise InputError(
            "the prompt is nothing but padding, of which HunyuanVideo can make nothing. Let it be "
            "computed by the checkpoint's text encoders."
        )
    instant = torch.tensor([timestep])
    conditioning, _ = model.time_text_embed(instant, prompt.pooled[None], torch.tensor([guidance]))
    return conditioning, model.context_embedder(tokens[None], instant)


def _modulation_of(norm: AdaLayerNormZero, conditioning: Tensor) -> tuple[Tensor, ...]:
    """Shift, scale and gate [1, width] of the attention, then of the feed-forward network."""
    modulation: Tensor = norm.linear(norm.silu(conditioning))
    return modulation.chunk(6, dim=1)


def _rotary_tables(
    model: HunyuanVideoTransformer3DModel, latent_shape: LatentShape
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every video token's angles, one a pair of channels: [1, N, 1, pairs]."""
    cos, sin = (table[None, :, None, ::2] for table in model.rope(torch.empty(1, *latent_shape)))
    return cos, sin


def _of_heads(projection: nn.Linear, heads: int, wanted: tuple[int, ...]) -> nn.Linear:
    """Leave out the heads that are not wanted: each is normalised on its own."""
    weight, bias = (
        torch.unflatten(whole, 0, (heads, -1))[list(wanted)].flatten(0, 1)
        for whole in (projection.weight, projection.bias)
    )
    part = nn.Linear(projection.in_features, len(bias))
    part.weight.copy_(weight)
    part.bias.copy_(bias)
    return part
