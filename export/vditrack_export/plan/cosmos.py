"""The Cosmos transformer: the whole of it, and the way into one block that export keeps."""

from math import prod

from vditrack_export.families.cosmos.shapes import CosmosTransformer
from vditrack_export.plan.layers import (
    Attention,
    LatentSize,
    Reading,
    constant_prompt,
    cross_attention,
    embedded,
    last_tokens,
    noised,
    patch_grid,
    perceptron,
    prompt_keys,
    self_attention,
)
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Cost, Fusion, Trace

# They mark frames that are conditions, and padding.
_MASKS = 2


def whole_transformer(shape: CosmosTransformer, latents: LatentSize, *, fusion: Fusion) -> Cost:
    """One guidance pass of diffusers' ``CosmosTransformer3DModel``, prompt and timestep included.

    All tokens have one timestep. Where frames are conditions, the pipeline tells one a frame, and
    diffusers then works out every modulation a token: 1.5% more for Cosmos-Predict2-2B at 704 x
    1280 x 25 frames.
    """
    trace = Trace(fusion)
    width = shape.width
    instant = Tensor((1, width))
    shared = _pair(trace, "time_embed", instant, width, 3 * width)
    embedding = trace.norm("time_embed.norm", instant, width)
    context = Tensor((1, shape.text_tokens, shape.text_dim))
    tokens = _patches(trace, shape, latents)
    kind = _attention(shape)
    for index in range(shape.layers):
        name = f"blocks.{index}"
        conditions = (shape, embedding, shared)
        normed = _modulated(trace, f"{name}.norm1", tokens, 3, *conditions)
        tokens = trace.elementwise(tokens, self_attention(trace, f"{name}.attn1", normed, kind))
        prompt = prompt_keys(trace, f"{name}.attn2", context, width, kind)
        normed = _modulated(trace, f"{name}.norm2", tokens, 3, *conditions)
        crossed = cross_attention(trace, f"{name}.attn2", normed, prompt, kind)
        tokens = trace.elementwise(tokens, crossed)
        normed = _modulated(trace, f"{name}.norm3", tokens, 3, *conditions)
        tokens = trace.elementwise(tokens, _feed_forward(trace, name, normed, shape))
    ended = _modulated(trace, "norm_out", tokens, 2, shape, embedding, shared)
    channels = shape.out_channels * prod(shape.patch)
    return trace.cost(trace.linear("proj_out", ended, channels, bias=False))


def truncated_path(
    shape: CosmosTransformer, latents: LatentSize, reading: Reading, *, fusion: Fusion
) -> Cost:
    """From latents to descriptors, as `transformer.CosmosPath` does it.

    Whatever depends on timestep and prompt alone is a constant, and the masks, which are zero, are
    left out. Of the block that is read only the chosen heads are projected.
    """
    trace = Trace(fusion)
    width = shape.width
    _, rows, columns = patch_grid(shape, latents)
    tokens = embedded(trace, shape, noised(trace, shape, latents), bias=False)
    every, newest = tokens.shape[1], reading.described * rows * columns
    trace.constant("rotary_tables", every, shape.head_dim)
    for index in range(reading.whole_blocks):
        kept = newest if index == reading.whole_blocks - 1 else every
        tokens = _block(trace, f"blocks.{index}", tokens, shape, kept)
    read = last_tokens(trace, tokens, newest)
    if reading.tensor != "hidden":
        normed = trace.norm("read.norm1", read, 2 * width)
        heads = reading.heads * shape.head_dim
        projected = trace.linear("read.projection", normed, heads, bias=False)
        read = trace.norm("read.norm", projected, shape.head_dim)
    return trace.cost(trace.copied((1, newest, reading.heads * reading.channels), read))


def _block(trace: Trace, name: str, tokens: Tensor, shape: CosmosTransformer, kept: int) -> Tensor:
    """A whole block, to the last ``kept`` tokens."""
    width, kind = shape.width, _attention(shape)
    trace.constant(f"{name}.gates", 3, width)
    normed = trace.norm(f"{name}.norm1", tokens, 2 * width)
    attended = self_attention(trace, f"{name}.attn1", normed, kind, asking=kept)
    tokens = trace.elementwise(last_tokens(trace, tokens, kept), attended)
    prompt = constant_prompt(trace, f"{name}.attn2", shape)
    normed = trace.norm(f"{name}.norm2", tokens, 2 * width)
    crossed = cross_attention(trace, f"{name}.attn2", normed, prompt, kind)
    tokens = trace.elementwise(tokens, crossed)
    normed = trace.norm(f"{name}.norm3", tokens, 2 * width)
    return trace.elementwise(tokens, _feed_forward(trace, name, normed, shape))


def _attention(shape: CosmosTransformer) -> Attention:
    return Attention(heads=shape.heads, norm=shape.head_dim, bias=False)


def _patches(trace: Trace, shape: CosmosTransformer, latents: LatentSize) -> Tensor:
    """Tokens [1, N, width] of latents and masks."""
    masked = trace.copied(
        (shape.in_channels + _MASKS, *latents), Tensor((shape.in_channels, *latents))
    )
    cells = (1, prod(patch_grid(shape, latents)), masked.shape[0] * prod(shape.patch))
    return trace.linear("patch_embedding", trace.copied(cells, masked), shape.width, bias=False)


def _feed_forward(trace: Trace, name: str, tokens: Tensor, shape: CosmosTransformer) -> Tensor:
    return perceptron(trace, f"{name}.ff", tokens, shape.feed_forward, shape.width, bias=False)


def _modulated(
    trace: Trace,
    name: str,
    tokens: Tensor,
    parts: int,
    shape: CosmosTransformer,
    embedding: Tensor,
    shared: Tensor,
) -> Tensor:
    """A norm whose ``parts`` modulations are computed of the timestep."""
    own = _pair(trace, name, embedding, shape.modulation_dim, parts * shape.width)
    return trace.copied(tokens.shape, tokens, trace.elementwise(own, shared))


def _pair(trace: Trace, name: str, x: Tensor, inner: int, outer: int) -> Tensor:
    """Two products, one after the other."""
    inside = trace.linear(f"{name}.linear_1", x, inner, bias=False)
    return trace.linear(f"{name}.linear_2", inside, outer, bias=False)
