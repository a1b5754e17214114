"""Pieces that the transformers of several families are made of."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from vditrack_export.families.base_shapes import Transformer
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Trace

LatentSize = tuple[int, int, int]
"""Frames, rows and columns of the latents."""

# Of an empty prompt: its end, and the padding.
_PROMPT_TOKENS = 2


@dataclass(frozen=True)
class Reading:
    """What is read of a transformer."""

    block: int
    """The blocks below it run whole, and for hidden states it too."""
    heads: int
    """How many of them."""
    channels: int
    """How many of each head."""
    described: int
    """Latent frames at the end of the window that are read. Earlier ones only lend their keys and
    values to the last whole block."""
    tensor: Literal["keys", "queries", "hidden"] = "keys"

    @property
    def whole_blocks(self) -> int:
        """Blocks that run from their first norm to their last sum."""
        return self.block + (self.tensor == "hidden")


@dataclass(frozen=True)
class Attention:
    """How a family makes its attention layers."""

    heads: int
    norm: int
    """Weights of the norm of queries, and of that of keys."""
    bias: bool
    """Of the projections."""


def patch_grid(shape: Transformer, latents: LatentSize) -> LatentSize:
    """Frames, rows and columns of the tokens that the transformer makes of latents."""
    frames, rows, columns = (
        side // patch for side, patch in zip(latents, shape.patch, strict=True)
    )
    return frames, rows, columns


def embedded(trace: Trace, shape: Transformer, latents: Tensor, *, bias: bool = True) -> Tensor:
    """Latents [C, T, h, w] to tokens [1, N, width]."""
    _, frames, rows, columns = latents.shape
    size = patch_grid(shape, (frames, rows, columns))
    patches = trace.convolve("patch_embedding", latents, shape.width, shape.patch, size, bias=bias)
    return trace.copied((1, prod(size), shape.width), patches)


def noised(trace: Trace, shape: Transformer, latents: LatentSize) -> Tensor:
    """Latents with their noise, which is a constant."""
    noise = trace.constant("noise", shape.in_channels, *latents)
    return trace.elementwise(Tensor(noise.shape), noise)


def self_attention(
    trace: Trace,
    name: str,
    tokens: Tensor,
    kind: Attention,
    *,
    asking: int | None = None,
    rotary: bool = True,
) -> Tensor:
    """Attention of the last ``asking`` tokens, or of all, to all."""
    width = tokens.shape[-1]
    last = last_tokens(trace, tokens, asking or tokens.shape[1])
    query, key = (
        trace.norm(
            f"{name}.norm_{part}",
            trace.linear(f"{name}.{part}", x, width, bias=kind.bias),
            kind.norm,
        )
        for part, x in (("q", last), ("k", tokens))
    )
    if rotary:
        query, key = trace.rotated(query, kind.heads), trace.rotated(key, kind.heads)
    value = trace.linear(f"{name}.v", tokens, width, bias=kind.bias)
    attended = trace.attend(query, key, value, kind.heads, node=True)
    return trace.linear(f"{name}.out", attended, width, bias=kind.bias)


def cross_attention(
    trace: Trace, name: str, tokens: Tensor, prompt: tuple[Tensor, Tensor], kind: Attention
) -> Tensor:
    """Attention to a prompt's keys and values."""
    width = tokens.shape[-1]
    query = trace.norm(
        f"{name}.norm_q", trace.linear(f"{name}.q", tokens, width, bias=kind.bias), kind.norm
    )
    # Of constants, how many tokens were merged is added to the logits.
    attended = trace.attend(query, *prompt, kind.heads, node=not prompt[0].constant)
    return trace.linear(f"{name}.out", attended, width, bias=kind.bias)


def prompt_keys(
    trace: Trace, name: str, context: Tensor, width: int, kind: Attention
) -> tuple[Tensor, Tensor]:
    """Keys and values of a prompt [1, M, C] as they are computed."""
    key = trace.linear(f"{name}.k", context, width, bias=kind.bias)
    return (
        trace.norm(f"{name}.norm_k", key, kind.norm),
        trace.linear(f"{name}.v", context, width, bias=kind.bias),
    )


def constant_prompt(trace: Trace, name: str, shape: Transformer) -> tuple[Tensor, Tensor]:
    """Keys and values of the empty prompt as constants.

    It is one token and padding, whose tokens are alike and merged into one.
    """
    size = (1, min(shape.text_tokens, _PROMPT_TOKENS), shape.width)
    if shape.text_tokens > _PROMPT_TOKENS:
        trace.constant("log_counts", _PROMPT_TOKENS)
    return trace.constant(f"{name}.k", *size), trace.constant(f"{name}.v", *size)


def perceptron(
    trace: Trace, name: str, x: Tensor, inner: int, outer: int, *, bias: bool = True
) -> Tensor:
    """Two products with an activation between."""
    inside = trace.gelu(trace.linear(f"{name}.0", x, inner, bias=bias))
    return trace.linear(f"{name}.1", inside, outer, bias=bias)


def last_tokens(trace: Trace, tokens: Tensor, count: int) -> Tensor:
    """Of [1, N, W], the last ``count`` along N."""
    batch, every, width = tokens.shape
    return tokens if every == count else trace.copied((batch, count, width), tokens)
