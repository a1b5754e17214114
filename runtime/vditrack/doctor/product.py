"""An ONNX graph of one matrix product, to test inference engines.

It is encoded byte by byte, because the doctor must not need ``onnx``. See onnx.proto and the
encoding of Protocol Buffers.
"""

SIDE = 16
"""Size of the square matrices: input ``x`` and output ``y`` = ``x x``, float32 [SIDE, SIDE]."""

_FLOAT = 1
_IR_VERSION, _OPSET = 8, 17


def encode_product_graph() -> bytes:
    """Return the model as ``onnxruntime.InferenceSession`` reads it."""
    node = _text(1, "x") + _text(1, "x") + _text(2, "y") + _text(4, "MatMul")
    graph = _message(1, node) + _text(2, "product")
    graph += _message(11, _tensor("x")) + _message(12, _tensor("y"))
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _number(2, _OPSET))


def _tensor(name: str) -> bytes:
    """Return a ValueInfoProto of a float32 matrix [SIDE, SIDE]."""
    side = _message(1, _number(1, SIDE))
    kind = _message(1, _number(1, _FLOAT) + _message(2, side + side))
    return _text(1, name) + _message(2, kind)


def _number(field: int, value: int) -> bytes:
    # Field numbers and values below 128 take a byte each.
    return bytes([field << 3, value])


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2, len(value)]) + value
