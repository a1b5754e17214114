"""Layers that the feature paths of UNets are made of.

Frames are images, float32 [F, C, h, w]. The timestep and other conditions are the same for every
frame: they are folded into the weights that follow, once, in FP32.
"""

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import AlphaBlender, ResnetBlock2D, TemporalResnetBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn

from vditrack_export.families.layers import Attend, Constant, split_heads


def to_clip(frames: Tensor) -> Tensor:
    """Return frames [F, C, h, w] as a clip [1, C, F, h, w]."""
    return frames.transpose(0, 1)[None]


def to_frames(clip: Tensor) -> Tensor:
    """Return a clip [1, C, F, h, w] as frames [F, C, h, w]."""
    return clip[0].transpose(0, 1)


class Residual(nn.Module):
    """A residual block of frames or of a clip.

    Args:
        block: Its submodules are shared if nothing is folded into them.
        instant: Embedding of the timestep, [1, width].

    """

    def __init__(self, block: ResnetBlock2D | TemporalResnetBlock, instant: Tensor) -> None:
        """Fold the timestep into a convolution or a norm."""
        super().__init__()
        conditioned = block.time_emb_proj(F.silu(instant))[0]
        scales = getattr(block, "time_embedding_norm", "default") == "scale_shift"
        self.norm1, self.conv2 = block.norm1, block.conv2
        self.conv1 = block.conv1 if scales else _fold_shift(block.conv1, conditioned)
        self.norm2 = _fold_scale(block.norm2, conditioned) if scales else block.norm2
        # Some blocks halve or double the picture, without weights.
        resized = getattr(block, "upsample", None) or getattr(block, "downsample", None)
        self.resize = resized or nn.Identity()
        self.shortcut = block.conv_shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [F, C, rows, columns] to as many channels as the block puts out."""
        inner = self.conv1(self.resize(F.silu(self.norm1(x))))
        inner = self.conv2(F.silu(self.norm2(inner)))
        advanced: Tensor = self.shortcut(self.resize(x)) + inner
        return advanced


def _fold_shift(conv: nn.Conv2d | nn.Conv3d, shift: Tensor) -> nn.Module:
    """Return a convolution that adds a constant to each of its channels, its weights shared."""
    size = conv.in_channels, conv.out_channels, conv.kernel_size
    shifted = type(conv)(*size, conv.stride, conv.padding, device="meta")  # type: ignore[arg-type]
    shifted.weight = conv.weight
    assert conv.bias is not None
    shifted.bias = nn.Parameter(conv.bias + shift, requires_grad=False)
    return shifted


def _fold_scale(norm: nn.GroupNorm, conditioned: Tensor) -> nn.GroupNorm:
    """Fold a scale and a shift, norm(x) (1 + scale) + shift, into the norm's own weights."""
    scale, shift = conditioned.chunk(2)
    folded = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps)
    folded.weight.copy_(norm.weight * (1 + scale))
    folded.bias.copy_(norm.bias * (1 + scale) + shift)
    return folded


class SelfAttention(nn.Module):
    """Attention of tokens [B, N, width] to themselves."""

    def __init__(self, attention: Attention) -> None:
        """Share the projections of ``attention``."""
        super().__init__()
        self.attend = Attend()
        self.heads: int = attention.heads
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend from all tokens [B, N, width] to all."""
        query, key, value = (
            split_heads(project(tokens), self.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        out: Tensor = self.to_out(self.attend(query, key, value))
        return out


class ImageAttention(nn.Module):
    """Self-attention of each frame, with its norm and a shortcut."""

    def __init__(self, attention: Attention) -> None:
        """Share the norm and projections of ``attention``."""
        super().__init__()
        self.norm, self.attention = attention.group_norm, SelfAttention(attention)

    def forward(self, x: Tensor) -> Tensor:
        """Map [F, C, rows, columns] to the same shape."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        moved: Tensor = self.attention(tokens).transpose(1, 2).reshape(x.shape)
        return x + moved


class ContextAttention(nn.Module):
    """Attention of tokens [B, N, width] to a context that is the same for all B.

    Args:
        attention: Its submodules are shared.
        context: The constant part of the context, [M, dim]; its keys and values become constants.

    """

    key: Tensor
    value: Tensor

    def __init__(self, attention: Attention, context: Tensor) -> None:
        """Compute the constant keys and values."""
        super().__init__()
        self.attend = Attend()
        self.heads: int = attention.heads
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]
        self.register_buffer("key", self.to_k(context))
        self.register_buffer("value", self.to_v(context))

    def forward(self, tokens: Tensor, added: Tensor | None = None) -> Tensor:
        """Attend; ``added``, [M', dim], is the part of the context that depends on the latents."""
        key, value = self.key, self.value
        if added is not None:
            key, value = (
                torch.cat((constant, project(added)))
                for constant, project in ((key, self.to_k), (value, self.to_v))
            )
        # As one sequence: every token sees the context alone, whatever its frame.
        every = tokens.flatten(0, 1)[None]
        query, key, value = (
            split_heads(x, self.heads) for x in (self.to_q(every), key[None], value[None])
        )
        out: Tensor = self.to_out(self.attend(query, key, value))
        return out.reshape(tokens.shape)


class Block(nn.Module):
    """A transformer block on tokens [B, N, width].

    Args:
        block: Its submodules are shared.
        context: Context of its second attention, [M, dim]; None for the tokens themselves.

    """

    def __init__(
        self,
        block: BasicTransformerBlock | TemporalBasicTransformerBlock,
        context: Tensor | None,
    ) -> None:
        """Share the parts of ``block``; the prompt becomes constants."""
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.attention1 = SelfAttention(block.attn1)
        self.attention2 = _second(block.attn2, context)
        self.feed_forward = block.ff

    def forward(self, tokens: Tensor, added: Tensor | None = None) -> Tensor:
        """Map tokens [B, N, width] to the same shape; ``added`` are more tokens of the context."""
        tokens = tokens + self.attention1(self.norm1(tokens))
        given = () if added is None else (added,)
        tokens = tokens + self.attention2(self.norm2(tokens), *given)
        advanced: Tensor = self.feed_forward(self.norm3(tokens))
        return tokens + advanced


def _second(attention: Attention, context: Tensor | None) -> nn.Module:
    if context is None:
        return SelfAttention(attention)
    if len(context) == 1:
        # The softmax over a single token is 1, whatever the query.
        return Constant(attention.to_out[0](attention.to_v(context)))
    return ContextAttention(attention, context)


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of each frame, with a shortcut around them.

    Args:
        model: Model with linear projections; its submodules are shared.
        context: The constant part of their context, [M, dim].

    """

    def __init__(self, model: Transformer2DModel, context: Tensor) -> None:
        """Share the parts of ``model``; the prompt becomes constants."""
        super().__init__()
        self.norm, self.proj_in, self.proj_out = model.norm, model.proj_in, model.proj_out
        self.blocks = nn.ModuleList(Block(block, context) for block in model.transformer_blocks)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Map [F, C, rows, columns] to the same shape; ``added`` are more tokens of the context."""
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, added)
        moved: Tensor = self.proj_out(tokens).transpose(1, 2).reshape(x.shape)
        return x + moved


class TemporalTransformer(nn.Module):
    """Transformer blocks over the frames at each position, with a shortcut around them."""

    def __init__(self, model: TransformerTemporalModel) -> None:
        """Share the parts of ``model``."""
        super().__init__()
        self.norm, self.proj_in, self.proj_out = model.norm, model.proj_in, model.proj_out
        self.blocks = nn.ModuleList(Block(block, None) for block in model.transformer_blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map frames [F, C, rows, columns] to the same shape."""
        frames, channels, rows, columns = x.shape
        # The norm is over all frames.
        normed = to_frames(self.norm(to_clip(x)))
        tokens = self.proj_in(normed.permute(2, 3, 0, 1).flatten(0, 1))
        for block in self.blocks:
            tokens = block(tokens)
        moved: Tensor = self.proj_out(tokens).reshape(rows, columns, frames, channels)
        return x + moved.permute(2, 3, 0, 1)


class Mixed(nn.Module):
    """A weighted mean, with a constant weight, of spatial and temporal features."""

    share: Tensor

    def __init__(self, mixer: AlphaBlender) -> None:
        """Compute the constant weight."""
        super().__init__()
        self.register_buffer("share", torch.sigmoid(mixer.mix_factor))

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Mix two tensors of one shape."""
        return self.share * spatial + (1 - self.share) * temporal
