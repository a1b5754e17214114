"""ONNX graphs of one node, for arrays that stay where ONNX Runtime runs.

They are encoded byte by byte, because the runtime does not need ``onnx``. See onnx.proto and the
encoding of Protocol Buffers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

_ELEMENTS = {"uint8": 2, "int32": 6, "int64": 7, "float32": 1, "float16": 10}
"""Values of onnx.TensorProto.DataType."""
_IR_VERSION, _OPSET = 8, 17
_INTEGER = 2
"""Value of onnx.AttributeProto.AttributeType for one integer."""


def encode_scatter_graph(dtype: DTypeLike) -> bytes:
    """Return a model that writes ``updates`` into ``data`` at ``indices`` of its first axis.

    Its output is ``result``. ``indices`` is int64 [N, 1].
    """
    inputs = [("data", dtype), ("indices", np.int64), ("updates", dtype)]
    return _encode_model("ScatterND", inputs, dtype)


def encode_concatenation_graph(dtype: DTypeLike, count: int) -> bytes:
    """Return a model that joins inputs ``0``, ``1``, ... along the third axis to ``result``."""
    axis = _message(1, b"axis") + _number(3, 2) + _number(20, _INTEGER)
    inputs = [(str(number), dtype) for number in range(count)]
    return _encode_model("Concat", inputs, dtype, _message(5, axis))


def _encode_model(
    operator: str,
    inputs: Sequence[tuple[str, DTypeLike]],
    dtype: DTypeLike,
    attributes: bytes = b"",
) -> bytes:
    node = b"".join(_message(1, name.encode()) for name, _ in inputs)
    node += _message(2, b"result") + _message(4, operator.encode()) + attributes
    graph = _message(1, node) + _message(2, operator.encode())
    graph += b"".join(_message(11, _tensor(*tensor)) for tensor in inputs)
    graph += _message(12, _tensor("result", dtype))
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _number(2, _OPSET))


def _tensor(name: str, dtype: DTypeLike) -> bytes:
    """Return a ValueInfoProto of a tensor of any shape."""
    kind = _message(1, _number(1, _ELEMENTS[np.dtype(dtype).name]))
    return _message(1, name.encode()) + _message(2, kind)


def _number(field: int, value: int) -> bytes:
    return _encode_varint(field << 3) + _encode_varint(value)


def _message(field: int, value: bytes) -> bytes:
    return _encode_varint(field << 3 | 2) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])
