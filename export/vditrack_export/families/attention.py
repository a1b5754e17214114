"""Attention layers of diffusers, with everything constant folded in."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vditrack_export.families.layers import (
    Attend,
    Constant,
    last_tokens,
    rotate_halves,
    rotate_pairs,
    split_heads,
)


class RotaryTables(NamedTuple):
    """Cosines and sines of all tokens' angles, [1, N, 1 or heads, pairs of channels]."""

    cos: Tensor
    sin: Tensor

    def newest(self, count: int) -> "RotaryTables":
        """Return the tables of the last ``count`` tokens."""
        return RotaryTables(last_tokens(self.cos, count), last_tokens(self.sin, count))


class CachedTokens(NamedTuple):
    """What a block keeps of earlier latents, [latents, tokens of a latent, width]."""

    key: Tensor
    """Keys after their norm and before the rotary embedding."""
    value: Tensor


class SelfAttention(nn.Module):
    """Self-attention whose last tokens alone have queries.

    Args:
        attention: Attention layer of diffusers; its submodules are shared.
        head_norms: Whether queries and keys are normalised head by head; otherwise over all heads.
        halves: Whether the rotary embedding pairs channels (i, i + head_dim / 2); otherwise
            neighbours.

    """

    def __init__(self, attention: Any, *, head_norms: bool, halves: bool = False) -> None:  # noqa: ANN401
        """Share the projections and norms of ``attention``."""
        super().__init__()
        self.attend = Attend()
        self.heads, self.head_norms = attention.heads, head_norms
        self.rotate = rotate_halves if halves else rotate_pairs
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.norm_q, self.norm_k = attention.norm_q, attention.norm_k
        self.to_out = attention.to_out[0]

    def forward(
        self, tokens: Tensor, cos: Tensor | None, sin: Tensor | None, newest: int
    ) -> Tensor:
        """Attend from the last ``newest`` tokens to all tokens [1, N, width]."""
        query = self._normed(self.norm_q, self.to_q(last_tokens(tokens, newest)))
        if cos is not None and sin is not None:
            query = self.rotate(query, last_tokens(cos, newest), last_tokens(sin, newest))
        key = self._normed(self.norm_k, self.to_k(tokens))
        if cos is not None and sin is not None:
            key = self.rotate(key, cos, sin)
        value = split_heads(self.to_v(tokens), self.heads)
        out: Tensor = self.to_out(self.attend(query, key, value))
        return out

    def step(
        self, tokens: Tensor, cached: CachedTokens, tables: RotaryTables, added: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from the newest tokens to those of cached latents and to each other.

        Args:
            tokens: Newest tokens, [1, N, width].
            cached: Keys and values of earlier latents.
            tables: Rotary tables of the cached tokens, then of the newest.
            added: What is added to the logits of the same tokens, float32 [M].

        Returns:
            Attended tokens, [1, N, width], and the newest tokens' keys and values as they are
            cached, [1, N, width].

        """
        newest, heads = tables.newest(tokens.shape[1]), self.heads
        query = self.rotate(self._normed(self.norm_q, self.to_q(tokens)), *newest)
        key = self._normed(self.norm_k, self.to_k(tokens)).flatten(2)
        value = self.to_v(tokens)
        older_key, older_value = (each.flatten(0, 1)[None] for each in cached)
        # Values are cached in the precision that they are multiplied in, or rounded to it here.
        precision = self.attend.precision
        values = torch.cat((older_value.to(precision), value.to(precision)), 1)
        keys = self.rotate(split_heads(torch.cat((older_key.float(), key), 1), heads), *tables)
        attended = self.attend(query, keys, split_heads(values, heads), added)
        return self.to_out(attended), key, value

    def _normed(self, norm: nn.Module, projected: Tensor) -> Tensor:
        return normalise_heads(norm, projected, self.heads, head_norms=self.head_norms)


def normalise_heads(norm: nn.Module, projected: Tensor, heads: int, *, head_norms: bool) -> Tensor:
    """Normalise queries or keys [1, N, width] and split them into heads."""
    if head_norms:
        normed: Tensor = norm(split_heads(projected, heads))
        return normed
    return split_heads(norm(projected), heads)


def cross_attention(
    attention: Any,  # noqa: ANN401
    context: Tensor,
    log_counts: Tensor | None = None,
    *,
    head_norms: bool,
) -> nn.Module:
    """Return the attention to the prompt, whose keys and values become constants.

    Args:
        attention: Attention layer of diffusers; its submodules are shared.
        context: Embedded tokens of the prompt, float32 [1, M, width].
        log_counts: Logarithm of how often each token occurs, [M]: see `merge_tokens`.
        head_norms: Whether queries and keys are normalised head by head.

    """
    value = attention.to_v(context)
    if context.shape[1] == 1:
        # The softmax over a single token is 1 for every query.
        return Constant(attention.to_out[0](value))
    key = normalise_heads(
        attention.norm_k, attention.to_k(context), attention.heads, head_norms=head_norms
    )
    counted = log_counts is not None and bool(log_counts.any())
    return CrossAttention(
        attention,
        key,
        split_heads(value, attention.heads),
        log_counts if counted else None,
        head_norms=head_norms,
    )


class CrossAttention(nn.Module):
    """Attention to constant keys and values, [1, M, heads, head_dim]: see `cross_attention`."""

    key: Tensor
    value: Tensor
    log_counts: Tensor | None

    def __init__(
        self,
        attention: Any,  # noqa: ANN401
        key: Tensor,
        value: Tensor,
        log_counts: Tensor | None,
        *,
        head_norms: bool,
    ) -> None:
        """Share the query's projection and norm; keys and values are constants."""
        super().__init__()
        self.attend = Attend()
        self.heads, self.head_norms = attention.heads, head_norms
        self.to_q, self.norm_q = attention.to_q, attention.norm_q
        self.to_out = attention.to_out[0]
        self.register_buffer("key", key)
        self.register_buffer("value", value)
        self.register_buffer("log_counts", log_counts)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend from tokens [1, N, width] to the prompt."""
        query = normalise_heads(
            self.norm_q, self.to_q(tokens), self.heads, head_norms=self.head_norms
        )
        out: Tensor = self.to_out(self.attend(query, self.key, self.value, self.log_counts))
        return out
