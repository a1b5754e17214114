"""The text encoder of the full pipeline, transformers' ``UMT5EncoderModel``."""

from vditrack_export.card import Umt5
from vditrack_export.plan.trace import Cost, Trace

# Of distances, each with a learnt bias a head: relative_attention_num_buckets of every UMT5.
_BUCKETS = 32


def text_encoder(shape: Umt5, tokens: int, *, fused: bool) -> Cost:
    """One prompt, padded to ``tokens``; the padding is computed like the rest."""
    trace = Trace(fused=fused)
    trace.constant("embedding", shape.vocabulary, shape.width)
    inner = shape.heads * shape.head_dim
    x = trace.copied((1, tokens, shape.width))
    for index in range(shape.layers):
        name = f"block.{index}"
        trace.constant(f"{name}.bias", _BUCKETS, shape.heads)
        normed = trace.norm(f"{name}.norm1", x, shape.width)
        query, key, value = (
            trace.linear(f"{name}.{part}", normed, inner, bias=False) for part in "qkv"
        )
        attended = trace.attend(query, key, value, shape.heads)
        x = trace.elementwise(x, trace.linear(f"{name}.o", attended, shape.width, bias=False))
        normed = trace.norm(f"{name}.norm2", x, shape.width)
        gate, plain = (
            trace.linear(f"{name}.{part}", normed, shape.feed_forward, bias=False)
            for part in ("wi_0", "wi_1")
        )
        gated = trace.elementwise(plain, trace.gelu(gate))
        x = trace.elementwise(x, trace.linear(f"{name}.wo", gated, shape.width, bias=False))
    return trace.cost(trace.norm("final_norm", x, shape.width))
