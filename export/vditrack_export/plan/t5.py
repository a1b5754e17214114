"""The text encoder of the full pipeline: transformers' ``T5EncoderModel``, ``UMT5EncoderModel``."""

from vditrack_export.families.text_encoders import T5, Umt5
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Cost, Fusion, Trace

# Of distances, each with a learnt bias a head: relative_attention_num_buckets of every T5 and UMT5.
_BUCKETS = 32


def text_encoder(shape: Umt5 | T5, tokens: int, *, fusion: Fusion) -> Cost:
    """One prompt, padded to ``tokens``; the padding is computed like the rest."""
    trace = Trace(fusion)
    trace.constant("embedding", shape.vocabulary, shape.width)
    gated = not isinstance(shape, T5) or shape.gated
    inner = shape.heads * shape.head_dim
    x = trace.copied((1, tokens, shape.width))
    for index in range(shape.layers):
        name = f"block.{index}"
        # All blocks of a T5 use the distances of the first.
        distances = "block.0" if isinstance(shape, T5) else name
        trace.constant(f"{distances}.bias", _BUCKETS, shape.heads)
        normed = trace.norm(f"{name}.norm1", x, shape.width)
        query, key, value = (
            trace.linear(f"{name}.{part}", normed, inner, bias=False) for part in "qkv"
        )
        attended = trace.attend(query, key, value, shape.heads, node=False)
        x = trace.elementwise(x, trace.linear(f"{name}.o", attended, shape.width, bias=False))
        normed = trace.norm(f"{name}.norm2", x, shape.width)
        inside = _inside(trace, name, normed, shape.feed_forward, gated=gated)
        x = trace.elementwise(x, trace.linear(f"{name}.wo", inside, shape.width, bias=False))
    return trace.cost(trace.norm("final_norm", x, shape.width))


def _inside(trace: Trace, name: str, x: Tensor, features: int, *, gated: bool) -> Tensor:
    """Of the feed-forward network: ReLU of one product, or two of which one gates the other."""
    plain = trace.linear(f"{name}.wi", x, features, bias=False)
    if not gated:
        return trace.elementwise(plain)
    gate = trace.linear(f"{name}.wi_gate", x, features, bias=False)
    return trace.elementwise(plain, trace.gelu(gate))
