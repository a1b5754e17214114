"""Layers that the feature paths of several families are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vditrack_export.families.onnx_attention import attention_node


class Constant(nn.Module):
    """Returns the same value for all tokens."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        """Keep the value as a buffer."""
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, _tokens: Tensor) -> Tensor:
        """Return the value."""
        return self.value


def fold_modulation(norm: nn.LayerNorm, scale: Tensor, shift: Tensor) -> nn.LayerNorm:
    """Fold a constant modulation, norm(x) (1 + scale) + shift, into the norm's own weights."""
    folded = nn.LayerNorm(norm.normalized_shape, norm.eps)
    folded.weight.copy_(1 + scale.flatten())
    folded.bias.copy_(shift.flatten())
    if norm.elementwise_affine:
        folded.bias.addcmul_(folded.weight, norm.bias)
        folded.weight.mul_(norm.weight)
    return folded


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs (2i, 2i + 1) of [1, N, heads, channels] by their angles."""
    even, odd = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs (i, i + channels / 2) of [1, N, heads, channels] by their angles."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def last_tokens(x: Tensor, count: int) -> Tensor:
    """Return the last ``count`` tokens of [1, N, ...]; tokens are ordered frame by frame."""
    return x if x.shape[1] == count else x[:, -count:]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split the last axis into heads: [..., width] to [..., heads, head_dim]."""
    return torch.unflatten(x, -1, (heads, -1))


class Attend(nn.Module):
    """Attention of [1, N, heads, channels] to [1, M, heads, channels], heads joined again.

    The softmax is computed in FP32; its two products are in ``precision``, which
    `pipeline.precision` sets. In an FP32 graph without a bias this is a single node.
    """

    def __init__(self) -> None:
        """Start in FP32."""
        super().__init__()
        self.precision = torch.float32

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None = None
    ) -> Tensor:
        """Attend; ``added``, [M], is added to the logits of every query."""
        whole = self.precision == torch.float32 and added is None
        if whole and torch.onnx.is_in_onnx_export():
            return attention_node(query, key, value)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        attended = attend_by_head(query, key, value, self.precision, added)
        return attended.transpose(1, 2).flatten(-2)


def attend_by_head(
    query: Tensor, key: Tensor, value: Tensor, precision: torch.dtype, added: Tensor | None = None
) -> Tensor:
    """Return attention of [B, heads, N, channels] to [B, heads, M, channels], float32.

    The softmax is computed in FP32; its two products are in ``precision``. ``added``, [M], is
    added to the logits of every query.
    """
    if precision == torch.float32:
        bias = None if added is None else added[None]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    query = query * query.shape[-1] ** -0.5
    query, key, value = (x.to(precision) for x in (query, key, value))
    logits = (query @ key.transpose(-2, -1)).float()
    weights = (logits if added is None else logits + added).softmax(-1)
    return (weights.to(precision) @ value).float()
