"""A bundle that is not whole, or not what it claims, does not load; the error says what to do."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import msgspec.inspect
import pytest

from doubles.manifest import two_cells, write_graphs
from vditrack.bundle.folder import (
    ENCODER,
    ENCODER_START,
    FEATURES,
    MANIFEST,
    load_bundle,
    seal_bundle,
)
from vditrack.bundle.manifest import SCHEMA_VERSION, Encoder, Input, Manifest
from vditrack.bundle.upgrade import OLDEST_VERSION
from vditrack.errors import BundleError

Change = Callable[[dict[str, Any]], None]
"""Changes a manifest's content in place."""

MANIFEST_OF_TWO_CELLS = two_cells()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sealed bundle, whose graphs are never opened here."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_graphs(folder)
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
    assert b"features" in loaded.features.read_bytes()
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
    write_graphs(root, ENCODER_START)
    sealed = seal_bundle(root, MANIFEST_OF_TWO_CELLS)
    edit(root, lambda m: m["input"].update(window, temporal_stride=4))
    edit(root, lambda m: m["encoder"].update(frames=frames, caches=caches))
    loaded = load_bundle(root)
    assert loaded.manifest.encoder == Encoder(frames=frames, caches=caches)
    assert loaded.manifest.files == sealed.manifest.files
    assert b"encoder_start" in loaded.encoder_start.read_bytes()


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
    [
        (SCHEMA_VERSION + 1, "Update vditrack"),
        (OLDEST_VERSION - 1, "Export the bundle again from its checkpoint"),
    ],
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


@pytest.mark.parametrize("name", ["./encoder.onnx", "encoder.onnx/", ".//encoder.onnx"])
def test_a_second_name_of_a_file_is_refused(root: Path, name: str) -> None:
    edit(root, lambda m: m["files"].update({name: m["files"][ENCODER]}))
    assert "not a plain path" in refusal(root)


@pytest.mark.parametrize("target", ["../outside", ENCODER, f"{FEATURES}"])
def test_a_link_in_place_of_a_file_is_refused(root: Path, target: str) -> None:
    """Also a link within the folder: what it names can be replaced after the check."""
    (root.parent / "outside").write_bytes((root / ENCODER).read_bytes())
    (root / ENCODER).unlink()
    (root / ENCODER).symlink_to(target)
    assert f"{root / ENCODER} is a symbolic link" in refusal(root)


@pytest.mark.parametrize("name", ["engines", "engines/build", "notes.txt", "motion"])
def test_a_link_anywhere_in_the_folder_is_refused(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).symlink_to(root.parent)
    assert f"{root / name} is a symbolic link" in refusal(root)


def test_a_link_above_a_listed_file_is_refused(root: Path) -> None:
    """Hidden folders are searched for listed files alone."""
    (root.parent / "hidden").mkdir()
    (root.parent / "hidden" / "file").write_bytes(b"")
    (root / ".hidden").symlink_to(root.parent / "hidden")
    empty = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    edit(root, lambda m: m["files"].update({".hidden/file": empty}))
    assert f"{root / '.hidden'} is a symbolic link" in refusal(root)


def test_the_folder_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    assert load_bundle(root.parent / "link").manifest == load_bundle(root).manifest


@pytest.mark.parametrize("name", [ENCODER, MANIFEST, "engines/pipe"])
def test_a_fifo_is_refused_without_waiting(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    assert "FIFO" in refusal(root)


def test_a_device_in_place_of_a_file_is_refused(root: Path) -> None:
    (root / MANIFEST).unlink()
    (root / MANIFEST).symlink_to("/dev/zero")
    assert "link" in refusal(root)


def test_a_deeply_nested_manifest_is_refused(root: Path) -> None:
    (root / MANIFEST).write_bytes(b'{"schema_version": 8, "source": ' + b"[" * 1_000_000)
    assert_refused(root, "nested more than 64 levels deep", str(root / MANIFEST))


def test_a_manifest_larger_than_memory_is_refused(root: Path) -> None:
    with (root / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than the limit" in refusal(root)


@pytest.mark.parametrize("name", ["nothing here", "file", "empty"])
def test_no_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / name)
    assert f"no bundle at {tmp_path / name}" in message
    assert "vditrack export" in message


def list_integers(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the place and the type of every integer of a schema."""
    if isinstance(kind, msgspec.inspect.IntType):
        yield path, kind
    elif isinstance(kind, msgspec.inspect.UnionType):
        for each in kind.types:
            yield from list_integers(each, path)
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        yield from list_integers(kind.item_type, path)
    elif isinstance(kind, msgspec.inspect.StructType):
        for field in kind.fields:
            yield from list_integers(field.type, (*path, field.name))


def test_every_integer_of_the_manifest_has_an_upper_limit() -> None:
    """Else one number makes the runtime take memory until the system ends it."""
    found = dict(list_integers(msgspec.inspect.type_info(Manifest)))
    assert ("encoder", "caches") in found
    assert ("propagation", "displacement", "frames") in found
    # A version that is compared, and the seed of noise that was drawn at export.
    without = {("schema_version",), ("source", "noise_seed")}
    assert {path for path, kind in found.items() if kind.le is None} == without


@pytest.mark.parametrize(
    ("part", "field"), [("encoder", "caches"), ("input", "overlap"), ("input", "frames")]
)
def test_a_number_beyond_all_reason_is_refused(root: Path, part: str, field: str) -> None:
    edit(root, lambda manifest: manifest[part].update({field: 100_000_000}))
    assert f"$.{part}.{field}" in refusal(root)
