"""Loading, sealing and checking of bundles.

A bundle is the folder that export writes and every other unit only reads. Its manifest,
``bundle.json``, holds what was exported and how to use it, and the size and sha256 of every other
file. Nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from vditrack.bundle.digest_cache import DigestCache, open_digest_cache
from vditrack.bundle.distillation import DISTILLATION
from vditrack.bundle.file_checks import check_file, check_folder, file_record
from vditrack.bundle.graph_checks import check_graph
from vditrack.bundle.manifest import SCHEMA_VERSION, Manifest
from vditrack.bundle.signature import (
    SIGNATURE,
    PublicKey,
    check_bundle_signature,
    read_public_key,
)
from vditrack.bundle.upgrade import OLDEST_VERSION, ManifestError, upgrade_manifest
from vditrack.errors import BundleError
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file

MANIFEST = "bundle.json"
ENCODER = "encoder.onnx"
ENCODER_START = "encoder_start.onnx"
FEATURES = "features.onnx"
_GRAPHS = (ENCODER, ENCODER_START, FEATURES)
INT8_GRAPHS = {graph: f"{Path(graph).stem}.int8.onnx" for graph in (ENCODER, FEATURES)}
"""The graphs in INT8 for CPUs, by the graphs that they replace."""
ACCEPTANCE = "gate.npz"
"""Tracks of the acceptance clips as they were at export (`vditrack.acceptance`)."""
MOTION, APPEARANCE = "motion", "appearance"
"""Folders of the bundles within a bundle whose features are fused to propagate object masks."""
CONTENTS = frozenset(
    {
        MANIFEST,
        SIGNATURE,
        *_GRAPHS,
        *(f"{graph}.data" for graph in _GRAPHS),
        *INT8_GRAPHS.values(),
        ACCEPTANCE,
        DISTILLATION,
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
    parts: Mapping[str, Bundle] = field(default_factory=dict)
    """The bundles within it, by folder name."""
    key: PublicKey | None = None
    """Key that its builds have to be signed with; None if no signature is required."""
    allow_host_code: bool = False
    """Whether the user allows engines to bring code for the CPU; no file of the bundle can."""

    def moved_to(self, root: Path) -> Bundle:
        """Return the same bundle after its folder was moved to ``root``."""
        parts = {name: part.moved_to(root / name) for name, part in self.parts.items()}
        return replace(self, root=root, parts=parts)

    def with_host_code(self) -> Bundle:
        """Return the same bundle, whose engines may bring code for the CPU."""
        parts = {name: part.with_host_code() for name, part in self.parts.items()}
        return replace(self, parts=parts, allow_host_code=True)

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
        return self.parts[MOTION]

    @property
    def appearance(self) -> Bundle:
        """The bundle of appearance features, if the manifest has ``propagation``.

        It is this one itself if single frames are read in the same way for points and for masks.
        """
        return self.parts.get(APPEARANCE, self)

    @property
    def acceptance(self) -> Path | None:
        """Path of the tracks that engines have to reproduce; None if there are none."""
        return self.root / ACCEPTANCE if ACCEPTANCE in self.manifest.files else None


def bundled_model() -> Path:
    """Return the folder of the model that comes with the package."""
    return Path(str(resources.files("vditrack.models"))) / "tiny"


def load_bundle(
    path: Path | str,
    *,
    require_signature: Path | str | None = None,
    verify_files: bool = False,
    allow_host_code: bool = False,
) -> Bundle:
    """Load a bundle, and check its signature, its files and what its graphs read.

    Every file is compared with its size and sha256 in the manifest. The digest of a large file is
    taken from the user's cache if the file did not change since it was computed
    (`vditrack.bundle.digest_cache`).

    Args:
        path: Folder of the bundle.
        require_signature: File of the Ed25519 public key that the bundle has to be signed with;
            None to accept unsigned bundles.
        verify_files: Whether to read large files too that did not change; always so with a
            required signature.
        allow_host_code: Whether engines may bring code for the CPU, as version compatible ones do.
            It runs with the rights of this process.

    Raises:
        BundleError: There is no bundle, it is not signed with that key, a file is missing, altered,
            a link or outside the folder, a graph reads other files, or the manifest has an unknown
            schema version or contradicts itself.
        InputError: The key cannot be read, or cryptography is not installed.

    """
    root = Path(path)
    key = None if require_signature is None else read_public_key(Path(require_signature))
    content = _read_manifest(root)
    if key is not None:
        if root == bundled_model() and not (root / SIGNATURE).exists():
            raise BundleError(
                "the model that comes with vditrack is not signed, and a signature is required. "
                "Give a bundle that you signed, such as with --bundle."
            )
        check_bundle_signature(root, content, key)
    digests = None if verify_files or key is not None else open_digest_cache()
    check_folder(root)
    bundle = _load_content(root, content, key, digests)
    if digests is not None:
        digests.save()
    return bundle.with_host_code() if allow_host_code else bundle


def _load_content(
    root: Path, content: bytes, key: PublicKey | None, digests: DigestCache | None
) -> Bundle:
    """Check the files of a bundle and of the bundles within it."""
    manifest = _parse_manifest(root, content)
    _check_consistency(root, manifest)
    for name, record in manifest.files.items():
        check_file(root, name, record, digests)
    _check_graphs(root, manifest)
    parts = {}
    for part in _part_names(manifest):
        inner = _read_manifest(root / part)
        listed = manifest.files.get(f"{part}/{MANIFEST}")
        # It was checked above; this is the content that is used.
        if listed is None or listed.sha256 != hashlib.sha256(inner).hexdigest():
            raise BundleError(
                f"{root / MANIFEST} does not list {part}/{MANIFEST} as it is. Copy the bundle "
                "again, or export it again."
            )
        parts[part] = _load_content(root / part, inner, key, digests)
    return Bundle(root, manifest, parts, key)


def _part_names(manifest: Manifest) -> list[str]:
    settings = manifest.propagation
    if settings is None:
        return []
    motion = [] if settings.displacement is not None else [MOTION]
    read = manifest.input
    # Points and masks may read the same features.
    shared = read.frames == 1 and read.attention == "window"
    own = not shared or f"{APPEARANCE}/{MANIFEST}" in manifest.files
    return [APPEARANCE, *motion] if own else motion


def _check_graphs(root: Path, manifest: Manifest) -> None:
    # Bundles within this one check their own.
    beside = {name: record for name, record in manifest.files.items() if "/" not in name}
    for name in beside:
        if not name.endswith(".onnx"):
            continue
        try:
            check_graph(root / name, beside)
        except OSError as error:
            raise BundleError(f"{root / name} cannot be read: {error.strerror}.") from error
        except MalformedError as error:
            raise BundleError(
                f"{root / name} is not a graph that a bundle may hold: {error}. Refused. Export "
                "the bundle again from a checkpoint that you trust."
            ) from error


def seal_bundle(root: Path, manifest: Manifest) -> Bundle:
    """Write the manifest as ``bundle.json``, with a record of every file below ``root``."""
    unlisted = {root / MANIFEST, root / SIGNATURE}
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path not in unlisted)
    files = {path.relative_to(root).as_posix(): file_record(path) for path in paths}
    sealed = msgspec.structs.replace(manifest, files=files)
    text = msgspec.json.format(msgspec.json.encode(sealed), indent=2)
    (root / MANIFEST).write_bytes(text + b"\n")
    return load_bundle(root)


def _read_manifest(root: Path) -> bytes:
    try:
        return read_file(root / MANIFEST, MAX_JSON_SIZE, follow_links=False)
    except OSError as error:
        raise BundleError(
            f"no bundle at {root}: {MANIFEST} cannot be read ({error.strerror}). "
            "Give a folder that `vditrack export` wrote."
        ) from error


def _parse_manifest(root: Path, content: bytes) -> Manifest:
    """Return a manifest of this schema version, whatever version its content has."""
    path = root / MANIFEST
    try:
        # The version is read first and alone: another schema's fields are not to be complained of.
        version = decode_json(content, _Versioned).schema_version
        _check_version(path, version)
        fields = upgrade_manifest(decode_json(content, dict[str, Any]))
        manifest = msgspec.convert(fields, type=Manifest)
    except (MalformedError, msgspec.ValidationError, ManifestError) as error:
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
    if OLDEST_VERSION <= version <= SCHEMA_VERSION:
        return
    # Versions 1 to 3 refined matches by a search within refine_radius.
    remedy = (
        "Update vditrack."
        if version > SCHEMA_VERSION
        else "Points of older bundles were refined in a way that it does not have, so their tracks "
        "would be others. Export the bundle again from its checkpoint."
    )
    raise BundleError(
        f"{path} has schema version {version}; this vditrack reads {OLDEST_VERSION} to "
        f"{SCHEMA_VERSION}. {remedy}"
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
    encoder = manifest.encoder
    claims = [
        (ENCODER in manifest.files, f"{ENCODER} is not listed"),
        (FEATURES in manifest.files, f"{FEATURES} is not listed"),
        *(
            (manifest.int8 is None or name in manifest.files, f"{name} is not listed")
            for name in INT8_GRAPHS.values()
        ),
        (
            manifest.int8 is None or (encoder.caches == 0 and inp.attention == "window"),
            "it has INT8 graphs, and its own graphs pass caches from run to run",
        ),
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
            inp.attention == "window" or encoder.frames == 1,
            "keys and values are cached, and the encoder takes several frames of a window",
        ),
        (
            inp.temporal_stride == 1 or whole,
            "latents share frames, and the encoder has no caches: then it takes whole windows, of "
            "which all frames are described",
        ),
    ]
