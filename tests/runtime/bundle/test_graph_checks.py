"""What a graph reads from other files is found wherever a tensor may be, and checked first."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx.external_data_helper
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from doubles.manifest import two_cells, write_graphs
from vditrack.bundle.file_checks import file_record
from vditrack.bundle.folder import FEATURES, MANIFEST, bundled_model, load_bundle, seal_bundle
from vditrack.bundle.graph_checks import MAX_NESTING, check_graph, read_graph
from vditrack.bundle.manifest import FileRecord
from vditrack.errors import BundleError
from vditrack.input_checks.files import MalformedError

WEIGHTS = FileRecord(size=64, sha256="0" * 64)
FILES = {"weights.data": WEIGHTS}


def external(location: str, name: str = "w", **entries: object) -> TensorProto:
    """Return an external tensor of 4 float32."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, location, **entries)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(values, indices, [4])


def graph(*nodes: onnx.NodeProto, **parts: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **parts)


def model(*nodes: onnx.NodeProto, **parts: Any) -> onnx.ModelProto:
    return helper.make_model(graph(*nodes, **parts))


def constant(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **attributes)


def function(tensor: TensorProto) -> onnx.ModelProto:
    made = model()
    made.functions.append(
        helper.make_function(
            "local", "f", [], ["c"], [constant(value=tensor)], [helper.make_opsetid("", 20)]
        )
    )
    return made


def function_default(tensor: TensorProto) -> onnx.ModelProto:
    made = function(numpy_helper.from_array(np.zeros(1)))
    made.functions[0].attribute_proto.append(helper.make_attribute("weights", tensor))
    return made


def training(part: str) -> Callable[[TensorProto], onnx.ModelProto]:
    def make(tensor: TensorProto) -> onnx.ModelProto:
        made = model()
        info = made.training_info.add()
        getattr(info, part).CopyFrom(graph(initializer=[tensor]))
        return made

    return make


def plain(name: str) -> TensorProto:
    return numpy_helper.from_array(np.zeros(1, np.int64), name)


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "initializer": lambda t: model(initializer=[t]),
    "values of a sparse initializer": lambda t: model(sparse_initializer=[sparse(t, plain("i"))]),
    "indices of a sparse initializer": lambda t: model(sparse_initializer=[sparse(plain("v"), t)]),
    "attribute": lambda t: model(constant(value=t)),
    "list of tensors": lambda t: model(helper.make_node("Op", [], [], many=[plain("p"), t])),
    "sparse attribute": lambda t: model(constant(sparse_value=sparse(t, plain("i")))),
    "list of sparse tensors": lambda t: model(
        helper.make_node("Op", [], [], many=[sparse(plain("v"), plain("i")), sparse(plain("v"), t)])
    ),
    "subgraph": lambda t: model(
        helper.make_node("If", ["c"], ["o"], then_branch=graph(initializer=[t]))
    ),
    "list of subgraphs": lambda t: model(
        helper.make_node("Op", [], [], many=[graph(), graph(constant(value=t))])
    ),
    "subgraph of a subgraph": lambda t: model(
        helper.make_node(
            "Loop",
            [],
            [],
            body=graph(helper.make_node("If", [], [], then_branch=graph(constant(value=t)))),
        )
    ),
    "function": function,
    "default of a function": function_default,
    "initialization of a training": training("initialization"),
    "algorithm of a training": training("algorithm"),
}


def tensors_of(message: Message) -> Iterator[TensorProto]:
    """Yield every tensor of a message, whatever field it is in: by protobuf's own description."""
    if isinstance(message, TensorProto):
        yield message
    for _, value in message.ListFields():
        for each in [value] if isinstance(value, Message) else value if _many(value) else []:
            if isinstance(each, Message):
                yield from tensors_of(each)


def _many(value: object) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def nodes_of(message: Message) -> Iterator[onnx.NodeProto]:
    if isinstance(message, onnx.NodeProto):
        yield message
    for _, value in message.ListFields():
        for each in [value] if isinstance(value, Message) else value if _many(value) else []:
            if isinstance(each, Message):
                yield from nodes_of(each)


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_is_found_in_every_place(place: str, tmp_path: Path) -> None:
    made = PLACES[place](external("/etc/hostname"))
    path = tmp_path / "graph.onnx"
    path.write_bytes(made.SerializeToString())
    assert any(t.external_data for t in tensors_of(made))
    with pytest.raises(MalformedError, match="'/etc/hostname', which is not a file beside it"):
        check_graph(path, FILES)


def test_the_walk_agrees_with_the_onnx_package_on_its_own_models() -> None:
    """The models of onnx's backend tests, some with tensors moved to other files at random."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = sorted(folder.rglob("*.onnx"))
    assert len(paths) > 100
    chosen = random.Random(0)
    moved = 0
    for path in paths:
        made = onnx.load(path)
        for tensor in tensors_of(made):
            if tensor.HasField("raw_data") and chosen.random() < 0.5:
                onnx.external_data_helper.set_external_data(tensor, f"file {moved}")
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                moved += 1
        _assert_agreement(made)
    assert moved > 50


def test_the_walk_agrees_with_the_onnx_package_on_the_bundled_model() -> None:
    paths = list(bundled_model().rglob("*.onnx"))
    assert len(paths) == 4
    for path in paths:
        _assert_agreement(onnx.load(path))


def _assert_agreement(made: onnx.ModelProto) -> None:
    found = read_graph(made.SerializeToString())
    expected = [
        tuple((e.key, e.value) for e in t.external_data)
        for t in tensors_of(made)
        if t.external_data
    ]
    assert sorted(t.entries for t in found.tensors) == sorted(expected)
    assert found.operators == {(n.domain, n.op_type) for n in nodes_of(made)}


@pytest.mark.parametrize(
    "location",
    [
        "../weights.data",
        "/weights.data",
        "sub/weights.data",
        "./weights.data",
        "sub\\weights.data",
        "other.data",
        "weights.data\0",
        "",
        # ONNX Runtime's own mark for weights in its memory.
        "*/_ORT_MEM_ADDR_/*",
    ],
)
def test_weights_are_read_from_listed_files_beside_the_graph_alone(
    location: str, tmp_path: Path
) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(model(initializer=[external(location)]).SerializeToString())
    with pytest.raises(MalformedError, match="which is not a file beside it"):
        check_graph(path, FILES)


@pytest.mark.parametrize(
    ("entries", "fits"),
    [
        ({}, True),
        ({"offset": 48}, True),
        ({"offset": 48, "length": 16}, True),
        ({"offset": 49}, False),
        ({"offset": -1}, False),
        ({"offset": 10**18}, False),
        ({"offset": 10**30}, False),
        ({"length": 17}, False),
        ({"length": 0}, False),
        ({"offset": "0x10"}, False),
        ({"offset": "9" * 10_000}, False),
        ({"offset": "\N{ARABIC-INDIC DIGIT ONE}"}, False),
    ],
)
def test_weights_lie_within_their_file(
    entries: dict[str, object], fits: bool, tmp_path: Path
) -> None:
    tensor = external("weights.data")
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    path = tmp_path / "graph.onnx"
    path.write_bytes(model(initializer=[tensor]).SerializeToString())
    if fits:
        check_graph(path, FILES)
        return
    with pytest.raises(MalformedError, match=r"offset or length|a tensor of 16 bytes"):
        check_graph(path, FILES)


@pytest.mark.parametrize("key", ["prepacked_0", "", "Location", "\x1b"])
def test_external_data_has_the_keys_of_onnx_alone(key: str, tmp_path: Path) -> None:
    """ONNX Runtime reads more of the file where it finds ``prepacked_N``."""
    tensor = external("weights.data")
    tensor.external_data.add(key="checksum", value="00")
    path = tmp_path / "graph.onnx"
    path.write_bytes(model(initializer=[tensor]).SerializeToString())
    check_graph(path, FILES)
    tensor.external_data.add(key=key, value="k|0;16;0")
    path.write_bytes(model(initializer=[tensor]).SerializeToString())
    with pytest.raises(MalformedError, match="external data with the key"):
        check_graph(path, FILES)


def rename(made: onnx.ModelProto, place: str, name: str) -> None:
    """Give one of the texts of a model another value."""
    inner = made.graph
    owner, field = {
        "producer": (made, "producer_name"),
        "graph": (inner, "name"),
        "node": (inner.node[0], "name"),
        "operator": (inner.node[0], "op_type"),
        "attribute": (inner.node[0].attribute[0], "name"),
        "initializer": (inner.initializer[0], "name"),
        "value": (inner.value_info[0], "name"),
        "dimension": (inner.value_info[0].type.tensor_type.shape.dim[0], "dim_param"),
        "output of a subgraph": (inner.node[1].attribute[0].g.output[0], "name"),
        "set of operators": (made.opset_import[0], "domain"),
        "function": (made.functions[0], "name"),
    }[place]
    setattr(owner, field, name)


NAMED = [
    "producer",
    "graph",
    "node",
    "operator",
    "attribute",
    "initializer",
    "value",
    "dimension",
    "output of a subgraph",
    "set of operators",
    "function",
]


def named_model() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n"])
    inner = helper.make_graph([], "inner", [], [value])
    made = function(plain("p"))
    made.graph.CopyFrom(
        graph(
            constant(value=plain("p")),
            helper.make_node("If", ["c"], ["o"], then_branch=inner),
            initializer=[plain("unused")],
            value_info=[value],
        )
    )
    return made


@pytest.mark.parametrize("place", NAMED)
def test_names_that_control_a_terminal_are_refused_wherever_they_are(place: str) -> None:
    """ONNX Runtime prints names as they are, such as those of unused initializers."""
    for name in ("\x1b]0;t\x07", "a\nvditrack: signature OK", "\u202eb", "\u200b", "a" * 1001):
        made = named_model()
        read_graph(made.SerializeToString())
        rename(made, place, name)
        with pytest.raises(MalformedError, match="not printable"):
            read_graph(made.SerializeToString())


def test_a_name_that_is_no_utf8_is_refused() -> None:
    content = model(initializer=[plain("unused")]).SerializeToString()
    with pytest.raises(MalformedError, match="not printable"):
        read_graph(content.replace(b"unused", b"\x9b2Jxxx"))


@pytest.mark.parametrize("dims", [[2**62, 2**62], [-1], [5], [2] * 100_000])
def test_a_tensor_larger_than_its_file_is_refused(dims: list[int], tmp_path: Path) -> None:
    tensor = external("weights.data")
    tensor.ClearField("dims")
    tensor.dims.extend(dims)
    path = tmp_path / "graph.onnx"
    path.write_bytes(model(initializer=[tensor]).SerializeToString())
    with pytest.raises(MalformedError, match=r"external tensor|a tensor of"):
        check_graph(path, {"weights.data": FileRecord(size=16, sha256="0" * 64)})


def test_a_second_value_that_hides_the_first_is_refused(tmp_path: Path) -> None:
    twice = external("weights.data")
    twice.external_data.add(key="location", value="/etc/hostname")
    path = tmp_path / "graph.onnx"
    path.write_bytes(model(initializer=[twice]).SerializeToString())
    with pytest.raises(MalformedError, match="names its external data twice"):
        check_graph(path, FILES)
    # Protobuf merges two graphs of a model into one.
    parts = [model(initializer=[plain("a")]), model(initializer=[plain("b")])]
    path.write_bytes(b"".join(part.SerializeToString() for part in parts))
    with pytest.raises(MalformedError, match="has a field twice that occurs once"):
        check_graph(path, FILES)


@pytest.mark.parametrize(
    ("domain", "operator", "accepted"),
    [
        ("", "Add", True),
        ("ai.onnx", "Add", True),
        ("com.microsoft", "MultiHeadAttention", True),
        ("com.microsoft", "EPContext", False),
        ("someone", "Op", False),
    ],
)
def test_operators_that_no_bundle_needs_are_refused(
    domain: str, operator: str, accepted: bool, tmp_path: Path
) -> None:
    inner = graph(helper.make_node(operator, [], [], domain=domain))
    path = tmp_path / "graph.onnx"
    path.write_bytes(model(helper.make_node("If", [], [], then_branch=inner)).SerializeToString())
    if accepted:
        check_graph(path, FILES)
        return
    with pytest.raises(MalformedError, match=f"the operator '{operator}' of the domain"):
        check_graph(path, FILES)


def test_every_beginning_of_a_graph_is_read_or_refused() -> None:
    content = model(constant(value=external("weights.data"))).SerializeToString()
    for end in range(len(content)):
        try:
            read_graph(content[:end])
        except MalformedError:
            continue


def test_random_bytes_are_read_or_refused() -> None:
    content = bytearray(model(constant(value=external("weights.data"))).SerializeToString())
    chosen = random.Random(0)
    for _ in range(2000):
        changed = bytearray(content)
        for _ in range(3):
            changed[chosen.randrange(len(changed))] = chosen.randrange(256)
        try:
            read_graph(bytes(changed))
        except MalformedError:
            continue


def wrap(content: bytes, *numbers: int) -> bytes:
    """Return a message within messages, each the field of that number of the one around it."""
    for number in numbers:
        length, size = b"", len(content)
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        content = bytes([number << 3 | 2]) + length + bytes([size]) + content
    return content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (wrap(b"", *[6, 5, 1] * MAX_NESTING, 7), "nested more than 100 deep"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cut short"),
        (b"\x80" * 100, "does not end"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x00\x00", "field 0"),
        (b"\x08\x01" * 1_100_000, "more than 1,000,000 fields"),
        (b"", "it is empty"),
    ],
    ids=["nested", "huge length", "endless number", "group", "field 0", "many fields", "empty"],
)
def test_hostile_messages_are_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(content)
    with pytest.raises(MalformedError, match=complaint):
        check_graph(tmp_path / "graph.onnx", FILES)


@pytest.mark.parametrize("target", ["outside", "unlisted", "link"])
def test_a_bundle_whose_graph_reads_other_files_does_not_load(target: str, tmp_path: Path) -> None:
    """The check comes before ONNX Runtime, whose older releases read whatever is named."""
    outside = tmp_path / "outside.data"
    outside.write_bytes(np.ones(4, np.float32).tobytes())
    root = tmp_path / "bundle"
    root.mkdir()
    write_graphs(root)
    location = str(outside) if target == "outside" else "weights.data"
    made = model(initializer=[external(location)])
    (root / FEATURES).write_bytes(made.SerializeToString())
    if target == "link":
        (root / "weights.data").write_bytes(outside.read_bytes())
        seal_bundle(root, two_cells())
        (root / "weights.data").unlink()
        (root / "weights.data").symlink_to(outside)
    else:
        _write_manifest(root)
        if target == "unlisted":
            (root / "weights.data").write_bytes(outside.read_bytes())
    with pytest.raises(BundleError, match="link" if target == "link" else "is not a file beside"):
        load_bundle(root)


def _write_manifest(root: Path) -> None:
    """Write the manifest of a hostile bundle, whose digests are right."""
    files = {path.name: file_record(path) for path in root.glob("*.onnx")}
    manifest = msgspec.structs.replace(two_cells(), files=files)
    (root / MANIFEST).write_bytes(msgspec.json.encode(manifest))
