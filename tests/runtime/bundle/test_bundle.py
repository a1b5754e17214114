"""A bundle that is not whole, or not what it claims, does not load; the error says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
import onnx.external_data_helper
import pytest

from doubles.manifest import SOURCE, make_manifest
from vditrack.bundle.folder import (
    ENCODER,
    ENCODER_START,
    FEATURES,
    MANIFEST,
    load_bundle,
    seal_bundle,
)
from vditrack.bundle.manifest import SCHEMA_VERSION, Encoder, Input, Output
from vditrack.bundle.upgrade import OLDEST_VERSION
from vditrack.errors import BackendError, BundleError
from vditrack.inference.onnxruntime import OnnxRuntimeSession

Change = Callable[[dict[str, Any]], None]
"""Changes a manifest's content in place."""

MANIFEST_OF_TWO_CELLS = make_manifest(
    Input(height=8, width=16, frames=2, temporal_stride=1, described_frames=2),
    Encoder(frames=1, caches=0),
    Output(rows=1, columns=2, stride=8, channels=6),
    msgspec.structs.replace(SOURCE, block=1, heads=(0, 2), channels=(4, 5, 6)),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sealed bundle, whose graphs are never opened here."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / ENCODER).write_bytes(b"encoder" * 100)
    (folder / FEATURES).write_bytes(b"features" * 100)
    seal_bundle(folder, MANIFEST_OF_TWO_CELLS)
    return folder


def edit(root: Path, change: Change) -> None:
    manifest = json.loads((root / MANIFEST).read_text())
    change(manifest)
    (root / MANIFEST).write_text(json.dumps(manifest))


def four_to_a_latent(
    manifest: dict[str, Any], described_frames: int, frames: int = 4, caches: int = 1
) -> dict[str, Any]:
    """Parts of the manifest with windows of five frames whose encoder takes ``frames``."""
    size = {"frames": 5, "temporal_stride": 4, "described_frames": described_frames}
    encoder = {"frames": frames, "caches": caches}
    return {"input": manifest["input"] | size, "encoder": encoder}


def refusal(root: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(root)
    return str(caught.value)


def assert_refused(root: Path, *messages: str) -> None:
    found = refusal(root)
    assert [message for message in messages if message not in found] == []


def test_round_trip(root: Path) -> None:
    (root / "engines").mkdir()
    (root / "engines" / "some.engine").write_bytes(b"engine")
    sealed = seal_bundle(root, MANIFEST_OF_TWO_CELLS)
    loaded = load_bundle(str(root))
    assert loaded == sealed
    assert set(loaded.manifest.files) == {ENCODER, FEATURES, "engines/some.engine"}
    assert loaded.features.read_bytes().startswith(b"features")
    assert msgspec.structs.replace(loaded.manifest, files={}) == MANIFEST_OF_TWO_CELLS


@pytest.mark.parametrize(
    ("stride", "frames", "described", "latents", "described_latents"),
    [
        (1, 1, 1, 1, 1),
        (1, 25, 25, 25, 25),
        (1, 25, 3, 25, 3),
        (4, 1, 1, 1, 1),
        (4, 5, 5, 2, 2),
        (4, 25, 25, 7, 7),
        (4, 25, 24, 7, 6),
        (4, 25, 4, 7, 1),
    ],
)
def test_latents_of_a_window(
    stride: Literal[1, 4], frames: int, described: int, latents: int, described_latents: int
) -> None:
    window = Input(
        height=8, width=8, frames=frames, temporal_stride=stride, described_frames=described
    )
    assert (window.latents, window.described_latents) == (latents, described_latents)


@pytest.mark.parametrize(
    ("window", "frames", "caches"),
    [
        ({"frames": 9, "described_frames": 9}, 4, 30),
        ({"frames": 9, "described_frames": 8}, 4, 30),
        ({"frames": 9, "described_frames": 9}, 9, 0),
    ],
)
def test_latents_that_share_frames(
    root: Path, window: dict[str, int], frames: int, caches: int
) -> None:
    (root / ENCODER_START).write_bytes(b"start" * 100)
    sealed = seal_bundle(root, MANIFEST_OF_TWO_CELLS)
    edit(root, lambda m: m["input"].update(window, temporal_stride=4))
    edit(root, lambda m: m["encoder"].update(frames=frames, caches=caches))
    loaded = load_bundle(root)
    assert loaded.manifest.encoder == Encoder(frames=frames, caches=caches)
    assert loaded.manifest.files == sealed.manifest.files
    assert loaded.encoder_start.read_bytes().startswith(b"start")


@pytest.mark.parametrize("name", [ENCODER, FEATURES])
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "altered or cut short"),
        (lambda path: path.write_bytes(b""), "altered or cut short"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "altered or cut short"),
    ],
    ids=["missing", "truncated", "empty", "altered byte"],
)
def test_damaged_file(
    root: Path, name: str, damage: Callable[[Path], None], complaint: str
) -> None:
    damage(root / name)
    message = refusal(root)
    assert str(root / name) in message
    assert complaint in message
    assert "Copy" in message


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(SCHEMA_VERSION + 1, "Update vditrack"), (OLDEST_VERSION - 1, "Export the bundle again")],
)
def test_other_schema(root: Path, version: int, remedy: str) -> None:
    # The other schema's fields are of no concern.
    edit(root, lambda m: m.update(schema_version=version, invention=1))
    message = refusal(root)
    assert f"schema version {version}" in message
    assert remedy in message
    assert MANIFEST in message


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(invention=1), "invention"),
        (lambda m: m["source"].update(invention=1), "$.source"),
        (lambda m: m.pop("matching"), "matching"),
        (lambda m: m["input"].update(height="192"), "$.input.height"),
        (lambda m: m["input"].update(frames=0), "$.input.frames"),
        (lambda m: m["input"].update(temporal_stride=2), "$.input.temporal_stride"),
        (lambda m: m["input"].update(temporal_stride=4), "1 + a multiple of temporal_stride 4"),
        (lambda m: m["input"].update(described_frames=3), "described_frames is more than frames"),
        (
            lambda m: m["input"].update(temporal_stride=4, frames=9, described_frames=5),
            "neither all nor a multiple of temporal_stride 4",
        ),
        (lambda m: m["encoder"].update(frames=0), "$.encoder.frames"),
        (lambda m: m["encoder"].update(caches=-1), "$.encoder.caches"),
        (lambda m: m["source"].update(signal_level=1.1), "$.source.signal_level"),
        (lambda m: m["source"].update(heads=[]), "$.source.heads"),
        (lambda m: m["source"].update(tensor="values"), "$.source.tensor"),
        (lambda m: m["source"].update(checkpoint_sha256="abc"), "$.source.checkpoint_sha256"),
        (lambda m: m["matching"].update(temperature=0), "$.matching.temperature"),
        (lambda m: m["files"][ENCODER].update(size=-1), "$.files"),
        (lambda m: m.update(schema_version="1"), "$.schema_version"),
        (lambda m: m.pop("schema_version"), "schema_version"),
    ],
)
def test_manifest_of_wrong_form(root: Path, change: Change, complaint: str) -> None:
    edit(root, change)
    assert_refused(root, complaint, str(root / MANIFEST), "Export it again")


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (("matching",), "template_falloff"),
        (("matching",), "flow_tracking"),
        (("streaming", "live", "optical_flow"), "min_texture"),
        (("input",), "overlap"),
        ((), "streaming"),
    ],
)
def test_a_default_is_not_taken_for_a_field_that_is_not_there(
    root: Path, part: tuple[str, ...], field: str
) -> None:
    """Else the same bundle could give other tracks with the next release."""

    def remove(manifest: dict[str, Any]) -> None:
        for name in part:
            manifest = manifest[name]
        del manifest[field]

    edit(root, remove)
    assert f"does not have the field {'.'.join((*part, field))}." in refusal(root)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 1'])
def test_manifest_that_is_no_manifest(root: Path, content: bytes) -> None:
    (root / MANIFEST).write_bytes(content)
    assert "is not a bundle's manifest" in refusal(root)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m["output"].update(rows=2), "rows x stride"),
        (lambda m: m["output"].update(columns=3), "columns x stride"),
        (lambda m: m["output"].update(channels=7), "heads x channels"),
        (lambda m: m["encoder"].update(frames=3), "encoder's frames do not divide the window's"),
        (lambda m: m["encoder"].update(frames=2, caches=1), "the frames of one latent"),
        (lambda m: m.update(four_to_a_latent(m, described_frames=5)), ENCODER_START),
        (lambda m: m.update(four_to_a_latent(m, caches=0, described_frames=5)), "divide"),
        (
            lambda m: m.update(four_to_a_latent(m, frames=5, caches=0, described_frames=4)),
            "whole windows, of which all frames are described",
        ),
        (
            lambda m: m.update(four_to_a_latent(m, frames=1, caches=0, described_frames=5)),
            "whole windows",
        ),
        (lambda m: m["files"].pop(FEATURES), FEATURES),
        (lambda m: m["files"].pop(ENCODER), ENCODER),
    ],
)
def test_manifest_that_contradicts_itself(root: Path, change: Change, complaint: str) -> None:
    edit(root, change)
    assert_refused(root, complaint, "Export the bundle again")


@pytest.mark.parametrize(
    "name",
    ["/etc/hostname", "../outside", "engines/../../outside", "engines\\..\\x", "", ".", "a\0b"],
)
def test_path_that_leaves(root: Path, name: str) -> None:
    (root.parent / "outside").write_bytes(b"")
    edit(root, lambda m: m["files"].update({name: m["files"][ENCODER]}))
    assert "outside the bundle" in refusal(root)


@pytest.mark.parametrize("target", ["../outside", ENCODER], ids=["outside", "itself"])
def test_symbolic_link_that_leads_nowhere_good(root: Path, target: str) -> None:
    (root.parent / "outside").write_bytes((root / ENCODER).read_bytes())
    (root / ENCODER).unlink()
    (root / ENCODER).symlink_to(target)
    message = refusal(root)
    assert "outside the bundle" in message
    assert ENCODER in message


@pytest.mark.parametrize("name", ["nothing here", "file", "empty"])
def test_no_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / name)
    assert f"no bundle at {tmp_path / name}" in message
    assert "vditrack export" in message


@pytest.mark.parametrize("location", ["../outside.data", "absolute", "link.data"])
def test_weights_outside_the_folder_are_refused(root: Path, location: str) -> None:
    """ONNX files name their external weights by path: no path may lead out of the bundle."""
    outside = root.parent / "outside.data"
    outside.write_bytes(np.ones(4, np.float32).tobytes())
    (root / "link.data").symlink_to(outside)
    if location == "absolute":
        location = str(outside)
    (root / FEATURES).write_bytes(_graph_with_weights_at(location).SerializeToString())
    with pytest.raises(BackendError, match="External data path"):
        OnnxRuntimeSession(root / FEATURES)


def test_weights_inside_the_folder_are_read(root: Path) -> None:
    (root / "weights.data").write_bytes(np.ones(4, np.float32).tobytes())
    (root / FEATURES).write_bytes(_graph_with_weights_at("weights.data").SerializeToString())
    outputs = OnnxRuntimeSession(root / FEATURES).run({"latents": np.zeros(4, np.float32)})
    assert outputs["descriptors"].tolist() == [1, 1, 1, 1]


def _graph_with_weights_at(location: str) -> onnx.ModelProto:
    weights = onnx.TensorProto(name="weights", data_type=onnx.TensorProto.FLOAT, dims=[4])
    weights.raw_data = b""
    onnx.external_data_helper.set_external_data(weights, location)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["latents", "weights"], ["descriptors"])],
        "graph",
        [value("latents", onnx.TensorProto.FLOAT, [4])],
        [value("descriptors", onnx.TensorProto.FLOAT, [4])],
        [weights],
    )
    opset = onnx.helper.make_opsetid("", 20)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
