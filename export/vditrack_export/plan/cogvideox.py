"""The CogVideoX transformer: the whole of it, and the way into one block that export keeps.

The text's tokens go through every block together with the video's, the text first. Norms and gates
differ between the two kinds; all else is one sequence.
"""

from collections.abc import Iterable
from math import prod

from vditrack_export.families.cogvideox.shapes import CogVideoXTransformer
from vditrack_export.plan.layers import (
    Attention,
    LatentSize,
    Reading,
    embedded,
    last_tokens,
    noised,
    patch_grid,
    perceptron,
    self_attention,
)
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Cost, Fusion, Trace


def whole_transformer(shape: CogVideoXTransformer, latents: LatentSize, *, fusion: Fusion) -> Cost:
    """One guidance pass of diffusers' ``CogVideoXTransformer3DModel``, prompt and timestep too."""
    trace = Trace(fusion)
    width = shape.width
    instant = perceptron(
        trace, "time_embedding", Tensor((1, width)), shape.time_dim, shape.time_dim
    )
    prompt = Tensor((1, shape.text_tokens, shape.text_dim))
    text = trace.linear("text_proj", prompt, width)
    video = embedded(trace, shape, Tensor((shape.in_channels, *latents)))
    every = video.shape[1]
    tokens = _joined(trace, (text, video))
    for index in range(shape.layers):
        name = f"blocks.{index}"
        normed = _modulated(trace, f"{name}.norm1", tokens, instant, 6)
        tokens = trace.elementwise(tokens, _attended(trace, name, normed, shape))
        normed = _modulated(trace, f"{name}.norm2", tokens, instant, 6)
        tokens = trace.elementwise(tokens, _feed_forward(trace, name, normed, shape))
    ended = trace.norm("norm_final", last_tokens(trace, tokens, every), 2 * width)
    ended = _modulated(trace, "norm_out", ended, instant, 2)
    return trace.cost(trace.linear("proj_out", ended, shape.out_channels * prod(shape.patch)))


def truncated_path(
    shape: CogVideoXTransformer, latents: LatentSize, reading: Reading, *, fusion: Fusion
) -> Cost:
    """From latents to descriptors, as `transformer.CogVideoXPath` does it.

    Timestep and positions are constants, and so is the text before the first block; after it the
    text depends on the video and is computed, but for the last block, where it only lends its keys
    and values. Of the block that is read only the chosen heads are projected.
    """
    trace = Trace(fusion)
    width = shape.width
    frames, rows, columns = patch_grid(shape, latents)
    video = embedded(trace, shape, noised(trace, shape, latents))
    every, newest = video.shape[1], reading.described * rows * columns
    text = trace.constant("text", 1, shape.text_tokens, width)
    if shape.rotary:
        trace.constant("rotary_tables", shape.text_tokens + every, shape.head_dim)
    else:
        in_time = trace.constant("in_time", frames, 1, width)
        in_space = trace.constant("in_space", 1, rows * columns, width)
        video = trace.elementwise(video, in_time, in_space)
    tokens = _joined(trace, (text, video))
    for index in range(reading.whole_blocks):
        last = index == reading.whole_blocks - 1
        kept = newest if last else tokens.shape[1]
        tokens = _block(trace, f"blocks.{index}", tokens, shape, every, kept)
    read = last_tokens(trace, tokens, newest)
    if reading.tensor != "hidden":
        normed = trace.norm("read.norm1", read, 2 * width)
        projected = trace.linear("read.projection", normed, reading.heads * shape.head_dim)
        read = trace.norm("read.norm", projected, 2 * shape.head_dim)
    return trace.cost(trace.copied((1, newest, reading.heads * reading.channels), read))


def _block(
    trace: Trace, name: str, tokens: Tensor, shape: CogVideoXTransformer, video: int, kept: int
) -> Tensor:
    """A whole block, to the last ``kept`` tokens; all but the last ``video`` are the text's."""
    normed = _normed(trace, f"{name}.norm1", tokens, video)
    attended = _attended(trace, name, normed, shape, kept)
    gated = _gated(trace, f"{name}.attention_gate", attended, video)
    tokens = trace.elementwise(last_tokens(trace, tokens, kept), gated)
    advanced = _feed_forward(trace, name, _normed(trace, f"{name}.norm2", tokens, video), shape)
    return trace.elementwise(tokens, _gated(trace, f"{name}.feed_forward_gate", advanced, video))


def _attended(
    trace: Trace,
    name: str,
    tokens: Tensor,
    shape: CogVideoXTransformer,
    asking: int | None = None,
) -> Tensor:
    kind = Attention(heads=shape.heads, norm=2 * shape.head_dim, bias=True)
    return self_attention(trace, f"{name}.attn1", tokens, kind, asking=asking, rotary=shape.rotary)


def _feed_forward(trace: Trace, name: str, tokens: Tensor, shape: CogVideoXTransformer) -> Tensor:
    return perceptron(trace, f"{name}.ff", tokens, shape.feed_forward, shape.width)


def _modulated(trace: Trace, name: str, tokens: Tensor, instant: Tensor, parts: int) -> Tensor:
    """A norm whose ``parts`` modulations are computed of the timestep."""
    width = tokens.shape[-1]
    modulation = trace.linear(f"{name}.linear", instant, parts * width)
    return trace.elementwise(trace.norm(f"{name}.norm", tokens, 2 * width), modulation)


def _normed(trace: Trace, name: str, tokens: Tensor, video: int) -> Tensor:
    width = tokens.shape[-1]
    kinds = _kinds(trace, tokens, video)
    return _joined(trace, [trace.norm(f"{name}.{kind}", x, 2 * width) for kind, x in kinds])


def _gated(trace: Trace, name: str, tokens: Tensor, video: int) -> Tensor:
    width = tokens.shape[-1]
    kinds = _kinds(trace, tokens, video)
    gates = [(x, trace.constant(f"{name}.{kind}", width)) for kind, x in kinds]
    return _joined(trace, [trace.elementwise(x, gate) for x, gate in gates])


def _kinds(trace: Trace, tokens: Tensor, video: int) -> Iterable[tuple[str, Tensor]]:
    """The text's tokens, if there are any, and the video's."""
    batch, every, width = tokens.shape
    if every <= video:
        return [("video", tokens)]
    return [
        ("text", trace.copied((batch, every - video, width), tokens)),
        ("video", trace.copied((batch, video, width), tokens)),
    ]


def _joined(trace: Trace, kinds: Iterable[Tensor]) -> Tensor:
    """Put together along N of [1, N, W]."""
    parts = list(kinds)
    if len(parts) == 1:
        return parts[0]
    batch, _, width = parts[0].shape
    return trace.copied((batch, sum(part.shape[1] for part in parts), width), *parts)
