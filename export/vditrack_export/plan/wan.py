"""The Wan transformer: the whole of it, and the way into one block that export keeps."""

from math import prod

from vditrack_export.families.wan.shapes import WanTransformer
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


def whole_transformer(shape: WanTransformer, latents: LatentSize, *, fusion: Fusion) -> Cost:
    """One guidance pass of diffusers' ``WanTransformer3DModel``, prompt and timestep included."""
    trace = Trace(fusion)
    width, kind = shape.width, _attention(shape)
    prompt = Tensor((1, shape.text_tokens, shape.text_dim))
    context = perceptron(trace, "text_embedder", prompt, width, width)
    instant = Tensor((1, 1, shape.frequency_dim))
    conditioned = perceptron(trace, "time_embedder", instant, width, width)
    modulation = trace.linear("time_proj", conditioned, 6 * width)
    tokens = embedded(trace, shape, Tensor((shape.in_channels, *latents)))
    for index in range(shape.layers):
        name = f"blocks.{index}"
        trace.constant(f"{name}.scale_shift_table", 6, width)
        normed = trace.copied(tokens.shape, tokens, modulation)
        tokens = trace.elementwise(tokens, self_attention(trace, f"{name}.attn1", normed, kind))
        keys = prompt_keys(trace, f"{name}.attn2", context, width, kind)
        tokens = _prompted(trace, name, tokens, keys, kind)
        advanced = trace.copied(tokens.shape, tokens, modulation)
        tokens = trace.elementwise(tokens, _feed_forward(trace, name, advanced, shape))
    trace.constant("scale_shift_table", 2, width)
    ended = trace.copied(tokens.shape, tokens)
    return trace.cost(trace.linear("proj_out", ended, shape.out_channels * prod(shape.patch)))


def truncated_path(
    shape: WanTransformer, latents: LatentSize, reading: Reading, *, fusion: Fusion
) -> Cost:
    """From latents to descriptors, as `vditrack_export.families.wan.transformer.WanKeys` does it.

    Whatever depends on timestep and prompt alone is a constant. The prompt is empty, one token and
    padding whose tokens are merged into one: the keys and values of both count among the weights,
    and attention to a prompt without padding is no work at all. Of the block that is read all heads
    are projected: the norm is over all of them.
    """
    trace = Trace(fusion)
    width = shape.width
    _, rows, columns = patch_grid(shape, latents)
    tokens = embedded(trace, shape, noised(trace, shape, latents))
    every, newest = tokens.shape[1], reading.described * rows * columns
    trace.constant("rotary_tables", every, shape.head_dim)
    for index in range(reading.whole_blocks):
        kept = newest if index == reading.whole_blocks - 1 else every
        tokens = _block(trace, f"blocks.{index}", tokens, shape, kept)
    read = last_tokens(trace, tokens, newest)
    if reading.tensor != "hidden":
        normed = trace.norm("read.norm1", read, 2 * width)
        projected = trace.linear("read.projection", normed, width)
        read = trace.norm("read.norm", projected, width)
    return trace.cost(trace.copied((1, newest, reading.heads * reading.channels), read))


def _block(trace: Trace, name: str, tokens: Tensor, shape: WanTransformer, kept: int) -> Tensor:
    """A whole block, to the last ``kept`` tokens."""
    width, kind = shape.width, _attention(shape)
    trace.constant(f"{name}.gates", 2, width)
    normed = trace.norm(f"{name}.norm1", tokens, 2 * width)
    attended = self_attention(trace, f"{name}.attn1", normed, kind, asking=kept)
    tokens = trace.elementwise(last_tokens(trace, tokens, kept), attended)
    if shape.text_tokens == 1:
        tokens = trace.elementwise(tokens, trace.constant(f"{name}.attn2", 1, width))
    else:
        prompt = constant_prompt(trace, f"{name}.attn2", shape)
        tokens = _prompted(trace, name, tokens, prompt, kind)
    advanced = trace.norm(f"{name}.norm3", tokens, 2 * width)
    return trace.elementwise(tokens, _feed_forward(trace, name, advanced, shape))


def _attention(shape: WanTransformer) -> Attention:
    return Attention(heads=shape.heads, norm=shape.width, bias=True)


def _prompted(
    trace: Trace, name: str, tokens: Tensor, prompt: tuple[Tensor, Tensor], kind: Attention
) -> Tensor:
    """Tokens plus their attention to the prompt's keys and values."""
    normed = trace.norm(f"{name}.norm2", tokens, 2 * tokens.shape[-1])
    return trace.elementwise(tokens, cross_attention(trace, f"{name}.attn2", normed, prompt, kind))


def _feed_forward(trace: Trace, name: str, tokens: Tensor, shape: WanTransformer) -> Tensor:
    return perceptron(trace, f"{name}.ffn", tokens, shape.feed_forward, shape.width)
