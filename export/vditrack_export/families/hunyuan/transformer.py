"""From latents to descriptors through a HunyuanVideo transformer.

A diffusers ``HunyuanVideoTransformer3DModel`` is cut inside or after one of its double-stream
blocks (DiffTrack, arXiv 2506.17220; HeFT, arXiv 2512.04619). Everything that does not depend on the
latents is computed once, here, in FP32: noise, modulation by timestep, guidance and pooled prompt,
refined text tokens, rotary tables. The text tokens then pass through the blocks beside the video's,
with weights of their own, and depend on the latents after the first block.
"""

from dataclasses import dataclass

import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.models.normalization import AdaLayerNormZero
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformerBlock
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.families.attention import RotaryTables
from vditrack_export.families.feature_path import TransformerPath
from vditrack_export.families.layers import (
    Attend,
    fold_modulation,
    last_tokens,
    rotate_pairs,
    split_heads,
)
from vditrack_export.families.read_out import read_out
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.rotary import RotaryAxes

PIPELINE_GUIDANCE = 6000.0
"""Default guidance of diffusers' ``HunyuanVideoPipeline``: a scale of 6, times 1000."""


def hunyuan_rotary_axes(head_dim: int) -> RotaryAxes:
    """Return the channels of a HunyuanVideo head that rotate with time, height and width.

    Channels 2i and 2i + 1 of an axis rotate together, the more slowly the higher i.
    """
    side = 2 * (7 * head_dim // 32)
    return head_dim - 2 * side, side, side


@dataclass(frozen=True)
class HunyuanPrompt:
    """The outputs of HunyuanVideo's two text encoders for a prompt.

    As one tensor, [1 + tokens, text_dim], the pooled prompt comes first, padded with zeros.
    """

    tokens: Tensor
    """Output of Llama, float32 [tokens, text_dim]; padding is zero."""
    pooled: Tensor
    """Output of CLIP, float32 [pooled_dim], which is at most text_dim."""

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
    """Return the prompt that `HunyuanPrompt.packed` made one tensor of."""
    return HunyuanPrompt(packed[1:], packed[0, :pooled_dim])


class HunyuanVideoPath(TransformerPath):
    """Keys, queries or hidden states of one double-stream block after one denoising step.

    Args:
        model: The whole transformer in FP32, without image conditions; its submodules are shared.
        latent_shape: Channels, frames, rows and columns of the latents.
        cut: What is read; whole rotary pairs if it is rotated.
        denoising: The denoising step.
        prompt: A `HunyuanPrompt` as one tensor, float32 [1 + tokens, text_dim]. Its padding is left
            out, as the model masks it.
        guidance: Scale of the distilled guidance, times 1000; unused by a model without it.

    Raises:
        InputError: The whole prompt is padding.

    """

    text: Tensor

    def __init__(
        self,
        model: HunyuanVideoTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
        guidance: float = PIPELINE_GUIDANCE,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, model.config.patch_size, cut, denoising)
        self.patch_embedding = model.x_embedder.proj
        with torch.no_grad():
            given = unpack_prompt(prompt, model.config.pooled_projection_dim)
            conditioning, text = _conditions(model, denoising.timestep, guidance, given)
            rotary = _rotary_tables(model, latent_shape)
            last = model.transformer_blocks[self.whole - 1]
            self.blocks = self.build_blocks(
                model.transformer_blocks,
                lambda source, newest: _Block(source, conditioning, newest, last=source is last),
            )
            chosen = model.transformer_blocks[cut.block]
            shift, scale, *_ = _modulation_of(chosen.norm1, conditioning)
            norm1 = fold_modulation(chosen.norm1.norm, scale, shift)
            tables = rotary.newest(self.newest)
            self.reading = read_out(norm1, chosen.attn, cut, tables, head_norms=True)
        self.register_buffer("text", text)
        self.set_rotary(rotary)

    def run_blocks(self, tokens: Tensor) -> Tensor:
        """Run the blocks on video tokens [1, N, width], with the text's beside them."""
        text = self.text
        for block in self.blocks:
            tokens, text = block(tokens, text, self.cos, self.sin)
        return tokens


@dataclass(frozen=True)
class _Parts:
    """The modules of a block that the tokens of one stream pass through."""

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
    """A stream without queries: it only has keys and values, from normed tokens [1, N, width]."""

    def __init__(self, parts: _Parts, conditioning: Tensor) -> None:
        super().__init__()
        self.heads = parts.heads
        shift, scale, *_ = _modulation_of(parts.norm1, conditioning)
        self.norm1 = fold_modulation(parts.norm1.norm, scale, shift)
        self.to_k, self.norm_k, self.to_v = parts.to_k, parts.norm_k, parts.to_v

    def key(self, normed: Tensor) -> Tensor:
        key: Tensor = self.norm_k(split_heads(self.to_k(normed), self.heads))
        return key

    def value(self, normed: Tensor) -> Tensor:
        return split_heads(self.to_v(normed), self.heads)


class _Advancing(_Lending):
    """A stream that has queries too, and continues to the next block."""

    attention_gate: Tensor
    feed_forward_gate: Tensor

    def __init__(self, parts: _Parts, conditioning: Tensor) -> None:
        super().__init__(parts, conditioning)
        _, _, gate, shift, scale, ffn_gate = _modulation_of(parts.norm1, conditioning)
        self.to_q, self.norm_q, self.to_out = parts.to_q, parts.norm_q, parts.to_out
        self.register_buffer("attention_gate", gate)
        self.norm2 = fold_modulation(parts.norm2, scale, shift)
        self.feed_forward = parts.feed_forward
        self.register_buffer("feed_forward_gate", ffn_gate)

    def query(self, normed: Tensor) -> Tensor:
        query: Tensor = self.norm_q(split_heads(self.to_q(normed), self.heads))
        return query

    def advance(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + self.to_out(attended) * self.attention_gate
        advanced: Tensor = self.feed_forward(self.norm2(tokens))
        return tokens + advanced * self.feed_forward_gate


class _Block(nn.Module):
    """A whole double-stream block: both streams, [1, N, width] each, to the newest of the video.

    The last block leaves the text as it is, since nothing reads it afterwards.
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


def _conditions(
    model: HunyuanVideoTransformer3DModel, timestep: float, guidance: float, prompt: HunyuanPrompt
) -> tuple[Tensor, Tensor]:
    """Return the input of every modulation, [1, width], and the refined text [1, tokens, width]."""
    # Padding is a key to no other token, neither in the refiner nor in the blocks.
    tokens = prompt.tokens[prompt.mask]
    if len(tokens) == 0:
        raise InputError(
            "the prompt is nothing but padding, which HunyuanVideo cannot take. Have the "
            "checkpoint's text encoders compute it."
        )
    instant = torch.tensor([timestep])
    conditioning, _ = model.time_text_embed(instant, prompt.pooled[None], torch.tensor([guidance]))
    return conditioning, model.context_embedder(tokens[None], instant)


def _modulation_of(norm: AdaLayerNormZero, conditioning: Tensor) -> tuple[Tensor, ...]:
    """Return shift, scale and gate [1, width] of the attention, then of the feed-forward."""
    modulation: Tensor = norm.linear(norm.silu(conditioning))
    return modulation.chunk(6, dim=1)


def _rotary_tables(
    model: HunyuanVideoTransformer3DModel, latent_shape: LatentShape
) -> RotaryTables:
    """Return the tables of all video tokens; the text is not rotated."""
    cos, sin = (table[None, :, None, ::2] for table in model.rope(torch.empty(1, *latent_shape)))
    return RotaryTables(cos, sin)
