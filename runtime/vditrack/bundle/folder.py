"""Loading, sealing and checking of bundles.

A bundle is the folder that export writes and every other unit only reads. Its manifest,
``bundle.json``, holds what was exported and how to use it, and the size and sha256 of every other
file. Nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from vditrack.bundle.manifest import SCHEMA_VERSION, FileRecord, Manifest
from vditrack.bundle.upgrade import OLDEST_VERSION, ManifestError, upgrade_manifest
from vditrack.errors import BundleError

MANIFEST = "bundle.json"
ENCODER = "encoder.onnx"
ENCODER_START = "encoder_start.onnx"
FEATURES = "features.onnx"
_GRAPHS = (ENCODER, ENCODER_START, FEATURES)
ACCEPTANCE = "gate.npz"
"""Tracks of the acceptance clips as they were at export (`vditrack.acceptance`)."""
MOTION, APPEARANCE = "motion", "appearance"
"""Folders of the bundles within a bundle whose features are fused to propagate object masks."""
CONTENTS = frozenset(
    {
        MANIFEST,
        *_GRAPHS,
        *(f"{graph}.data" for graph in _GRAPHS),
        ACCEPTANCE,
        "engines",
        MOTION,
        APPEARANCE,
    }
)
"""All names that a bundle's folder may hold."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: its folder and its manifest."""

    root: Path
    manifest: Manifest

    @property
    def encoder(self) -> Path:
        """Path of the encoder's graph."""
        return self.root / ENCODER

    @property
    def encoder_start(self) -> Path:
        """Path of the encoder's graph for the first frame of a clip."""
        return self.root / ENCODER_START

    @property
    def features(self) -> Path:
        """Path of the transformer's graph."""
        return self.root / FEATURES

    @property
    def motion(self) -> Bundle:
        """The bundle of motion features; it exists if `Propagation` has no ``displacement``."""
        return _read_bundle(self.root / MOTION)

    @property
    def appearance(self) -> Bundle:
        """The bundle of appearance features; it exists if the manifest has ``propagation``."""
        return _read_bundle(self.root / APPEARANCE)

    @property
    def acceptance(self) -> Path | None:
        """Path of the tracks that engines have to reproduce; None if there are none."""
        return self.root / ACCEPTANCE if ACCEPTANCE in self.manifest.files else None


def bundled_model() -> Path:
    """Return the folder of the model that comes with the package."""
    return Path(str(resources.files("vditrack.models"))) / "tiny"


def load_bundle(path: Path | str) -> Bundle:
    """Load a bundle, and check every file against its digest.

    Raises:
        BundleError: There is no bundle, a file is missing, altered or outside the folder, or the
            manifest has an unknown schema version or contradicts itself.

    """
    bundle = _read_bundle(Path(path))
    for name, record in bundle.manifest.files.items():
        _check_file(bundle.root, name, record)
    settings = bundle.manifest.propagation
    if settings is not None:
        load_bundle(bundle.root / APPEARANCE)
        if settings.displacement is None:
            load_bundle(bundle.root / MOTION)
    return bundle


def _read_bundle(root: Path) -> Bundle:
    manifest = _read_manifest(root)
    _check_consistency(root, manifest)
    return Bundle(root, manifest)


def seal_bundle(root: Path, manifest: Manifest) -> Bundle:
    """Write the manifest as ``bundle.json``, with a record of every file below ``root``."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path != root / MANIFEST)
    files = {path.relative_to(root).as_posix(): file_record(path) for path in paths}
    sealed = msgspec.structs.replace(manifest, files=files)
    text = msgspec.json.format(msgspec.json.encode(sealed), indent=2)
    (root / MANIFEST).write_bytes(text + b"\n")
    return load_bundle(root)


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"no bundle at {root}: {MANIFEST} cannot be read ({error.strerror}). "
            "Give a folder that `vditrack export` wrote."
        ) from error
    try:
        # The version is read first and alone: another schema's fields are not to be complained of.
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        _check_version(path, version)
        fields = upgrade_manifest(msgspec.json.decode(content, type=dict[str, Any]))
        manifest = msgspec.convert(fields, type=Manifest)
    except (msgspec.DecodeError, ManifestError, RecursionError) as error:
        raise BundleError(
            f"{path} is not a bundle's manifest: {error}. Export it again."
        ) from error
    # The defaults of this version may not be those that the bundle was exported with.
    if missing := _first_missing(msgspec.to_builtins(manifest), fields):
        raise BundleError(f"{path} does not have the field {missing}. Export it again.")
    return manifest


class _Versioned(msgspec.Struct):
    schema_version: int


def _check_version(path: Path, version: int) -> None:
    if not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        remedy = "Update vditrack" if version > SCHEMA_VERSION else "Export the bundle again"
        raise BundleError(
            f"{path} has schema version {version}; this vditrack reads {OLDEST_VERSION} to "
            f"{SCHEMA_VERSION}. {remedy}."
        )


def _first_missing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Return the path of the first field that ``found`` does not have; None if it has all."""
    for name, value in expected.items():
        if name not in found:
            return name
        if isinstance(value, dict) and (deeper := _first_missing(value, found[name])):
            return f"{name}.{deeper}"
    return None


def _check_consistency(root: Path, manifest: Manifest) -> None:
    inp, out, source = manifest.input, manifest.output, manifest.source
    claims = [
        (ENCODER in manifest.files, f"{ENCODER} is not listed"),
        (FEATURES in manifest.files, f"{FEATURES} is not listed"),
        (out.rows * out.stride == inp.height, "rows x stride is not the input's height"),
        (out.columns * out.stride == inp.width, "columns x stride is not the input's width"),
        *_encoder_claims(manifest),
        (
            out.channels == len(source.heads) * len(source.channels),
            "output channels are not heads x channels",
        ),
    ]
    for holds, complaint in claims:
        if not holds:
            raise BundleError(f"{root / MANIFEST}: {complaint}. Export the bundle again.")


def _encoder_claims(manifest: Manifest) -> list[tuple[bool, str]]:
    inp, encoder = manifest.input, manifest.encoder
    if encoder.caches > 0:
        starts = inp.temporal_stride == 1 or ENCODER_START in manifest.files
        return [
            (
                encoder.frames == inp.temporal_stride,
                "the encoder does not take the frames of one latent",
            ),
            (starts, f"{ENCODER_START} is not listed"),
        ]
    whole = encoder.frames == inp.frames == inp.described_frames
    return [
        (inp.frames % encoder.frames == 0, "the encoder's frames do not divide the window's"),
        (
            inp.temporal_stride == 1 or whole,
            "latents share frames, and the encoder has no caches: then it takes whole windows, of "
            "which all frames are described",
        ),
    ]


def _check_file(root: Path, name: str, record: FileRecord) -> None:
    path = root / name
    if not _stays_inside(root, name):
        raise BundleError(
            f"{root / MANIFEST} names {name!r}, which is outside the bundle. Refused."
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing. Copy the whole bundle again, or export it again.")
    try:
        # Size first: it is free, and a truncated copy is the usual damage.
        intact = path.stat().st_size == record.size and file_record(path) == record
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    if not intact:
        raise BundleError(
            f"{path} was altered or cut short: its sha256 is not the one in {MANIFEST}. "
            "Copy the bundle again, or export it again."
        )


def _stays_inside(root: Path, name: str) -> bool:
    pure = PurePosixPath(name)
    if pure.is_absolute() or "\\" in name or ".." in pure.parts or not pure.parts:
        return False
    try:
        return (root / name).resolve().is_relative_to(root.resolve())
    # A zero byte in the name, or symbolic links in a circle.
    except (ValueError, OSError, RuntimeError):
        return False


def file_record(path: Path) -> FileRecord:
    """Return the size and the digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return FileRecord(size=path.stat().st_size, sha256=digest.hexdigest())
