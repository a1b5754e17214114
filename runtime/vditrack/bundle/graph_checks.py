"""Checks of a bundle's ONNX graphs before an inference engine reads them.

A graph names the files of its external weights itself, and older releases of ONNX Runtime, such as
1.20, read whatever file it names. So all names are checked here, by a walk over the protobuf
message that needs no other library. The numbers of the fields are those of ``onnx.proto``; the wire
format is described in https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vditrack.bundle.manifest import FileRecord
from vditrack.input_checks.files import MalformedError, open_regular_file

MAX_NESTING = 100
"""Most messages within each other, as in protobuf's own parsers."""
MAX_FIELDS = 1_000_000
"""Most fields that are visited in a graph; a transformer of 2,000 nodes has about 50,000."""
MAX_NAME = 1000
"""Longest name in a graph, in bytes; libraries print names in their messages."""
_MAX_DIMENSIONS = 64
_STANDARD_DOMAINS = ("", "ai.onnx")
_OTHER_OPERATORS = frozenset({("com.microsoft", "MultiHeadAttention")})
"""Operators of other domains that export writes. Others may read files, as EPContext does, which
names a compiled engine, or may need a library from outside."""

# Types of messages.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR = "model", "graph", "node", "attribute", "tensor"
_SPARSE, _TRAINING, _FUNCTION, _ENTRY = "sparse tensor", "training info", "function", "entry"
_VALUE_INFO, _TYPE, _TENSOR_TYPE, _SHAPE = "value", "type", "type of a tensor", "shape"
_DIMENSION, _OPSET, _ANNOTATION = "dimension", "set of operators", "annotation"
_CONTAINER = "type of a sequence, map or optional value"
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    _MODEL: {7: _GRAPH, 8: _OPSET, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {
        1: _NODE,
        5: _TENSOR,
        **dict.fromkeys((11, 12, 13), _VALUE_INFO),
        14: _ANNOTATION,
        15: _SPARSE,
    },
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {
        5: _TENSOR,
        6: _GRAPH,
        10: _TENSOR,
        11: _GRAPH,
        **dict.fromkeys((14, 15), _TYPE),
        **dict.fromkeys((22, 23), _SPARSE),
    },
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 9: _OPSET, 11: _ATTRIBUTE, 12: _VALUE_INFO},
    _TENSOR: {13: _ENTRY},
    _ENTRY: {},
    _VALUE_INFO: {2: _TYPE},
    _TYPE: {1: _TENSOR_TYPE, **dict.fromkeys((4, 5, 9), _CONTAINER), 8: _TENSOR_TYPE},
    _CONTAINER: {1: _TYPE, 2: _TYPE},
    _TENSOR_TYPE: {2: _SHAPE},
    _SHAPE: {1: _DIMENSION},
    _DIMENSION: {},
    _OPSET: {},
    _ANNOTATION: {2: _ENTRY},
}
"""Fields that lead to tensors, operators and names, with the types of their messages."""
_NAMES: Mapping[str, frozenset[int]] = {
    _MODEL: frozenset({2, 3, 4}),
    _GRAPH: frozenset({2}),
    _NODE: frozenset({1, 2, 3, 4, 7, 8}),
    _ATTRIBUTE: frozenset({1, 4, 9, 21}),
    _FUNCTION: frozenset({1, 4, 5, 6, 10, 13}),
    _TENSOR: frozenset({8}),
    _ENTRY: frozenset({1, 2}),
    _VALUE_INFO: frozenset({1}),
    _TYPE: frozenset({6}),
    _DIMENSION: frozenset({2, 3}),
    _OPSET: frozenset({1}),
    _ANNOTATION: frozenset({1}),
}
"""Fields with names and texts that libraries print, such as ONNX Runtime in its own log."""
_SINGLE: Mapping[str, frozenset[int]] = {
    _MODEL: frozenset({7}),
    _NODE: frozenset({4, 7}),
    _ATTRIBUTE: frozenset({5, 6, 22}),
    _SPARSE: frozenset({1, 2}),
    _TRAINING: frozenset({1, 2}),
    _TENSOR: frozenset({2, 14}),
    _ENTRY: frozenset({1, 2}),
}
"""Fields that occur once. Of several, parsers merge the messages or take the last value, so that a
reader could see something else than this one."""
_OPERATOR, _DOMAIN, _DIMENSIONS, _DATA_TYPE, _LOCATION, _KEY, _VALUE = 4, 7, 1, 2, 14, 1, 2
_EXTERNAL = 1
"""Value of ``data_location`` of a tensor in another file."""
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
"""Keys of external data that ONNX defines. ONNX Runtime acts on others, such as ``prepacked_0``."""
_BITS: Mapping[int, int] = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
}
"""Bits of an element, by ``TensorProto.DataType``, of types that can be external."""

Content = bytes | mmap.mmap
Field = tuple[int, int | tuple[int, int]]
"""Number and value of a field: an integer, or where its bytes begin and end."""


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose data is in another file than the graph."""

    entries: tuple[tuple[str, str], ...]
    """Keys and values of ``external_data``, such as ("location", "features.onnx.data")."""
    dimensions: tuple[int, ...]
    data_type: int


@dataclass(frozen=True)
class GraphContent:
    """What a graph reads from other files, and what it runs."""

    tensors: tuple[ExternalTensor, ...]
    operators: frozenset[tuple[str, str]]
    """Domains and names of operators."""


def check_graph(path: Path, files: Mapping[str, FileRecord]) -> None:
    """Check what a graph reads and runs, before an inference engine opens it.

    Args:
        path: The graph.
        files: Size of each file of its folder that it may read, by name.

    Raises:
        MalformedError: It is not an ONNX graph, it names data outside ``files`` or beyond their
            ends, it has an operator that no bundle needs, or a name that cannot be printed.
        OSError: It cannot be read.

    """
    with open_regular_file(path, follow_links=False) as file:
        # An empty file cannot be mapped.
        if not file.seek(0, 2):
            raise MalformedError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = read_graph(content)
    for tensor in found.tensors:
        _check_tensor(tensor, files)
    for domain, name in sorted(found.operators):
        if domain not in _STANDARD_DOMAINS and (domain, name) not in _OTHER_OPERATORS:
            raise MalformedError(f"it has the operator {name!r} of the domain {domain!r}")


def read_graph(content: Content) -> GraphContent:
    """Return what an ONNX model reads and runs; the data of tensors within it is skipped.

    Raises:
        MalformedError: It is not a protobuf message of a model, is nested too deeply, or has a
            name that cannot be printed.

    """
    tensors: list[ExternalTensor] = []
    operators: set[tuple[str, str]] = set()
    waiting = [(_MODEL, 0, len(content), 1)]
    visited = 0
    while waiting:
        kind, start, end, depth = waiting.pop()
        if depth > MAX_NESTING:
            raise MalformedError(f"its messages are nested more than {MAX_NESTING} deep")
        fields = list(_read_fields(content, start, end, MAX_FIELDS - visited))
        visited += len(fields)
        _check_single(kind, fields)
        _check_names(content, kind, fields)
        if kind == _TENSOR:
            if (tensor := _read_tensor(content, fields)) is not None:
                tensors.append(tensor)
            continue
        if kind == _NODE:
            operators.add((_text(content, fields, _DOMAIN), _text(content, fields, _OPERATOR)))
        children = _CHILDREN[kind]
        for number, value in fields:
            if number in children and not isinstance(value, int):
                waiting.append((children[number], *value, depth + 1))
    return GraphContent(tuple(tensors), frozenset(operators))


def _read_fields(content: Content, start: int, end: int, limit: int) -> Iterator[Field]:
    position = start
    while position < end:
        if limit <= 0:
            raise MalformedError(f"it has more than {MAX_FIELDS:,} fields")
        limit -= 1
        key, position = _read_varint(content, position, end)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise MalformedError(f"it is not a protobuf message: field {number} at {position}")
        if wire == 0:
            value, position = _read_varint(content, position, end)
            yield number, value
            continue
        if wire == 2:
            length, position = _read_varint(content, position, end)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise MalformedError(f"it is not a protobuf message: wire type {wire} at {position}")
        if length > end - position:
            raise MalformedError(f"it is cut short: {length:,} bytes at {position} pass its end")
        if wire == 2:
            yield number, (position, position + length)
        position += length


def _read_varint(content: Content, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise MalformedError(f"it is cut short at {position}")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedError(f"it is not a protobuf message: a number at {position} does not end")


def _check_single(kind: str, fields: list[Field]) -> None:
    single = _SINGLE.get(kind, frozenset())
    found = [number for number, _ in fields if number in single]
    if len(found) > len(set(found)):
        raise MalformedError(f"a {kind} in it has a field twice that occurs once")


def _check_names(content: Content, kind: str, fields: list[Field]) -> None:
    """Check that names are short, printable text: libraries print them as they are."""
    numbers = _NAMES.get(kind, frozenset())
    for number, value in fields:
        if number not in numbers or isinstance(value, int):
            continue
        name = content[value[0] : value[1]]
        try:
            printable = name.decode().isprintable()
        except UnicodeDecodeError:
            printable = False
        if not printable or len(name) > MAX_NAME:
            raise MalformedError(
                f"a {kind} in it has the name {ascii(name[:60])[1:]} of {len(name):,} bytes, "
                f"which is longer than {MAX_NAME:,} or not printable"
            )


def _read_tensor(content: Content, fields: list[Field]) -> ExternalTensor | None:
    """Return a tensor that is external, or has any sign of it; None if its data is in the graph."""
    spans = [
        value
        for number, value in fields
        if number in _CHILDREN[_TENSOR] and not isinstance(value, int)
    ]
    if not spans and (_LOCATION, _EXTERNAL) not in fields:
        return None
    entries = []
    for start, end in spans:
        entry = list(_read_fields(content, start, end, MAX_FIELDS))
        _check_single(_ENTRY, entry)
        entries.append((_text(content, entry, _KEY), _text(content, entry, _VALUE)))
    return ExternalTensor(
        tuple(entries),
        tuple(_read_dimensions(content, fields)),
        next((v for n, v in fields if n == _DATA_TYPE and isinstance(v, int)), 0),
    )


def _read_dimensions(content: Content, fields: list[Field]) -> Iterator[int]:
    for number, value in fields:
        if number != _DIMENSIONS:
            continue
        if isinstance(value, int):
            yield value
            continue
        # Several in one field, which is allowed for numbers.
        position, end = value
        while position < end:
            side, position = _read_varint(content, position, end)
            yield side


def _text(content: Content, fields: list[Field], number: int) -> str:
    for found, value in fields:
        if found == number and not isinstance(value, int):
            return content[value[0] : value[1]].decode("utf-8", errors="backslashreplace")
    return ""


def _check_tensor(tensor: ExternalTensor, files: Mapping[str, FileRecord]) -> None:
    """Check that a tensor lies within a file of the bundle."""
    entries = dict(tensor.entries)
    if len(entries) < len(tensor.entries):
        raise MalformedError("a tensor in it names its external data twice")
    if unknown := entries.keys() - _EXTERNAL_KEYS:
        raise MalformedError(
            f"a tensor in it has external data with the key {min(unknown)[:60]!r}, which export "
            "does not write"
        )
    name = entries.get("location", "")
    if "/" in name or "\\" in name or name not in files:
        raise MalformedError(
            f"it reads weights from {name!r}, which is not a file beside it that the manifest lists"
        )
    offset = _read_size(entries.get("offset", "0"))
    if tensor.data_type not in _BITS or len(tensor.dimensions) > _MAX_DIMENSIONS:
        raise MalformedError(
            f"an external tensor in it has {len(tensor.dimensions)} dimensions of the data type "
            f"{tensor.data_type}"
        )
    needed = -(-math.prod(tensor.dimensions) * _BITS[tensor.data_type] // 8)
    length = _read_size(entries.get("length", str(needed)))
    if length != needed or offset + length > files[name].size:
        raise MalformedError(
            f"a tensor of {needed:,} bytes in it reads {length:,} bytes at {offset:,} of {name!r}, "
            f"which has {files[name].size:,}"
        )


def _read_size(text: str) -> int:
    # No library reads more digits, and Python refuses thousands of them.
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise MalformedError(f"an external tensor in it has the offset or length {text[:40]!r}")
    return int(text)
