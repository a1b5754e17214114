"""The Wan transformer: the whole of it, and the way into one block that export keeps."""

from math import prod
from typing import Literal

from vditrack_export.card import WanTransformer
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Cost, Trace

LatentSize = tuple[int, int, int]
"""Frames, rows and columns of the latents."""

# Of an empty prompt: its end, and the padding.
_PROMPT_TOKENS = 2


def patch_grid(shape: WanTransformer, latents: LatentSize) -> LatentSize:
    """Frames, rows and columns of the tokens that the transformer makes of latents."""
    frames, rows, columns = (
        side // patch for side, patch in zip(latents, shape.patch, strict=True)
    )
    return frames, rows, columns


def whole_transformer(shape: WanTransformer, latents: LatentSize, *, fused: bool) -> Cost:
    """One guidance pass of diffusers' ``WanTransformer3DModel``, prompt and timestep included."""
    trace = Trace(fused=fused)
    width = shape.width
    prompt = Tensor((1, shape.text_tokens, shape.text_dim))
    context = _perceptron(trace, "text_embedder", prompt, width, width)
    instant = Tensor((1, 1, shape.frequency_dim))
    conditioned = _perceptron(trace, "time_embedder", instant, width, width)
    modulation = trace.linear("time_proj", conditioned, 6 * width)
    tokens = _embedded(trace, shape, Tensor((shape.in_channels, *latents)))
    for index in range(shape.layers):
        name = f"blocks.{index}"
        trace.constant(f"{name}.scale_shift_table", 6, width)
        normed = trace.copied(tokens.shape, tokens, modulation)
        tokens = trace.elementwise(tokens, _self_attention(trace, name, normed, shape))
        key = trace.norm(
            f"{name}.attn2.norm_k", trace.linear(f"{name}.attn2.k", context, width), width
        )
        value = trace.linear(f"{name}.attn2.v", context, width)
        tokens = _crossed(trace, name, tokens, (key, value), shape)
        advanced = trace.copied(tokens.shape, tokens, modulation)
        tokens = trace.elementwise(tokens, _feed_forward(trace, name, advanced, shape))
    trace.constant("scale_shift_table", 2, width)
    ended = trace.copied(tokens.shape, tokens)
    return trace.cost(trace.linear("proj_out", ended, shape.out_channels * prod(shape.patch)))


def truncated_path(
    shape: WanTransformer,
    latents: LatentSize,
    *,
    block: int,
    described: int,
    channels: int,
    fused: bool,
    tensor: Literal["keys", "queries", "hidden"] = "keys",
) -> Cost:
    """From latents to descriptors, as `vditrack_export.paths.wan.WanKeys` does it.

    Whatever depends on timestep and prompt alone is a constant. The prompt is empty, one token and
    padding whose tokens are merged into one: the keys and values of both count among the weights,
    and attention to a prompt without padding is no work at all.

    Args:
        shape: of the transformer.
        latents: size of the window.
        block: block that is read; the blocks below it run whole, and for hidden states it too.
        described: latent frames at the end of the window that are read. Earlier ones only lend
            their keys and values to the last whole block.
        channels: channels of a descriptor.
        fused: as in `Trace`.
        tensor: what is read of the block.

    """
    trace = Trace(fused=fused)
    width = shape.width
    noise = trace.constant("noise", shape.in_channels, *latents)
    clean = Tensor((shape.in_channels, *latents))
    tokens = _embedded(trace, shape, trace.elementwise(clean, noise))
    every = tokens.shape[1]
    newest = every * described // patch_grid(shape, latents)[0]
    trace.constant("rotary_tables", every, shape.head_dim)
    whole = block + (tensor == "hidden")
    for index in range(whole):
        name = f"blocks.{index}"
        trace.constant(f"{name}.gates", 2, width)
        wanted = newest if index == whole - 1 else every
        attended = _self_attention(
            trace, name, trace.norm(f"{name}.norm1", tokens, 2 * width), shape, wanted
        )
        tokens = trace.elementwise(_newest(trace, tokens, wanted), attended)
        tokens = _prompted(trace, name, tokens, shape)
        advanced = trace.norm(f"{name}.norm3", tokens, 2 * width)
        tokens = trace.elementwise(tokens, _feed_forward(trace, name, advanced, shape))
    read = _newest(trace, tokens, newest)
    if tensor != "hidden":
        normed = trace.norm(f"blocks.{block}.norm1", read, 2 * width)
        projected = trace.linear(f"blocks.{block}.attn1.{tensor}", normed, width)
        read = trace.norm(f"blocks.{block}.attn1.norm", projected, width)
    return trace.cost(trace.copied((1, newest, channels), read))


def _embedded(trace: Trace, shape: WanTransformer, latents: Tensor) -> Tensor:
    """Latents [C, T, h, w] to tokens [1, N, width]."""
    _, frames, rows, columns = latents.shape
    size = patch_grid(shape, (frames, rows, columns))
    patches = trace.convolve("patch_embedding", latents, shape.width, shape.patch, size)
    return trace.copied((1, prod(size), shape.width), patches)


def _self_attention(
    trace: Trace, name: str, tokens: Tensor, shape: WanTransformer, newest: int | None = None
) -> Tensor:
    width = shape.width
    asking = _newest(trace, tokens, newest or tokens.shape[1])
    query, key = (
        trace.rotated(trace.norm(f"{name}.attn1.norm_{part}", projected, width), shape.heads)
        for part, projected in (
            ("q", trace.linear(f"{name}.attn1.q", asking, width)),
            ("k", trace.linear(f"{name}.attn1.k", tokens, width)),
        )
    )
    value = trace.linear(f"{name}.attn1.v", tokens, width)
    attended = trace.attend(query, key, value, shape.heads)
    return trace.linear(f"{name}.attn1.out", attended, width)


def _prompted(trace: Trace, name: str, tokens: Tensor, shape: WanTransformer) -> Tensor:
    """Attention to a prompt that is a constant."""
    if shape.text_tokens == 1:
        return trace.elementwise(tokens, trace.constant(f"{name}.attn2", 1, shape.width))
    size = (1, min(shape.text_tokens, _PROMPT_TOKENS), shape.width)
    prompt = trace.constant(f"{name}.attn2.k", *size), trace.constant(f"{name}.attn2.v", *size)
    if shape.text_tokens > _PROMPT_TOKENS:
        trace.constant("log_counts", _PROMPT_TOKENS)
    return _crossed(trace, name, tokens, prompt, shape)


def _crossed(
    trace: Trace, name: str, tokens: Tensor, prompt: tuple[Tensor, Tensor], shape: WanTransformer
) -> Tensor:
    """Tokens plus their attention to the prompt's keys and values."""
    width = shape.width
    normed = trace.norm(f"{name}.norm2", tokens, 2 * width)
    query = trace.linear(f"{name}.attn2.q", normed, width)
    query = trace.norm(f"{name}.attn2.norm_q", query, width)
    crossed = trace.attend(query, *prompt, shape.heads)
    return trace.elementwise(tokens, trace.linear(f"{name}.attn2.out", crossed, width))


def _feed_forward(trace: Trace, name: str, tokens: Tensor, shape: WanTransformer) -> Tensor:
    return _perceptron(trace, f"{name}.ffn", tokens, shape.feed_forward, shape.width)


def _perceptron(trace: Trace, name: str, x: Tensor, inner: int, outer: int) -> Tensor:
    inside = trace.gelu(trace.linear(f"{name}.0", x, inner))
    return trace.linear(f"{name}.1", inside, outer)


def _newest(trace: Trace, tokens: Tensor, count: int) -> Tensor:
    """Of [1, N, W], the last ``count`` along N."""
    batch, every, width = tokens.shape
    return tokens if every == count else trace.copied((batch, count, width), tokens)
