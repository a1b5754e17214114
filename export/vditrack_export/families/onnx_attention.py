"""Attention as one node, which ONNX Runtime and TensorRT-RTX run without a [tokens, tokens] matrix.

The node is ONNX Runtime's ``com.microsoft.MultiHeadAttention``. The graph also has a function of
the same name in ONNX's own operators, which libraries without such a kernel run.
"""

import onnx.parser
import onnx_ir
import torch
from torch import Tensor

DOMAIN = "com.microsoft"
OPERATOR = "MultiHeadAttention"
_FUNCTION = """
<domain: "com.microsoft", opset_import: ["": 20]>
MultiHeadAttention <num_heads, scale> (query, key, value) => (attended) {
    kept = Constant <value_ints = [0, 0]> ()
    rest = Constant <value_ints = [-1]> ()
    heads = Constant <value_int: int = @num_heads> ()
    heads_1d = Reshape (heads, rest)
    split = Concat <axis = 0> (kept, heads_1d, rest)
    joined = Concat <axis = 0> (kept, rest)
    query_by_head = Reshape (query, split)
    key_by_head = Reshape (key, split)
    value_by_head = Reshape (value, split)
    queries = Transpose <perm = [0, 2, 1, 3]> (query_by_head)
    keys = Transpose <perm = [0, 2, 3, 1]> (key_by_head)
    values = Transpose <perm = [0, 2, 1, 3]> (value_by_head)
    factor = Constant <value_float: float = @scale> ()
    scaled = Mul (queries, factor)
    logits = MatMul (scaled, keys)
    weights = Softmax <axis = -1> (logits)
    mean = MatMul (weights, values)
    mean_by_token = Transpose <perm = [0, 2, 1, 3]> (mean)
    attended = Reshape (mean_by_token, joined)
}
"""


def attention_node(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the attention node of a graph that is being exported; torch computes nothing.

    Args:
        query: Queries, float32 [1, N, heads, channels].
        key: Keys, float32 [1, M, heads, channels].
        value: Values, shaped as ``key``.

    Returns:
        float32 [1, N, heads x channels].

    """
    heads, channels = query.shape[2:]
    joined = [x.flatten(2) for x in (query, key, value)]
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{OPERATOR}",
        joined,
        {"num_heads": heads, "scale": channels**-0.5},
        dtype=query.dtype,
        shape=joined[0].shape,
        version=1,
    )


def add_function(model: onnx_ir.Model) -> None:
    """Add the function to a model that has such nodes, in place."""
    if any((node.domain, node.op_type) == (DOMAIN, OPERATOR) for node in model.graph):
        function = onnx_ir.serde.deserialize_function(onnx.parser.parse_function(_FUNCTION))
        model.functions[function.identifier()] = function
