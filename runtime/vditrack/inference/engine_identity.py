"""The identity file beside each build: its bundle, its library and the GPU that it was built for.

An engine file does not tell whether it will load. Its identity is compared with the bundle and the
machine before the engine is opened. An engine that does not fit is never loaded, and never rebuilt
unless the user asks for it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.atomic_files import staged_file
from vditrack.bundle.file_checks import file_record
from vditrack.bundle.folder import (
    ACCEPTANCE,
    ENCODER,
    ENCODER_START,
    FEATURES,
    INT8_GRAPHS,
    Bundle,
)
from vditrack.bundle.manifest import FileRecord, Sha256
from vditrack.bundle.signature import PublicKey, check_build_signature
from vditrack.errors import BundleError, EngineError
from vditrack.inference.isolated_import import explain_broken
from vditrack.inference.machine import Machine
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file

SCHEMA_VERSION = 1
IDENTITY = "identity.json"
ENGINES = "engines"
"""Folder of a bundle that holds one folder per build."""
EngineName = Literal["encoder.engine", "encoder_start.engine", "features.engine"]
ENGINE_OF: dict[str, EngineName] = {
    ENCODER: "encoder.engine",
    ENCODER_START: "encoder_start.engine",
    FEATURES: "features.engine",
}
"""Engine file names by the graph that they are built from."""

Target = Literal["tensorrt", "tensorrt-rtx"]
TITLES: dict[Target, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
Flag = Literal[
    "version_compatible",
    "strip_weights",
    "ampere_plus",
    "same_compute_capability",
]
Shape = tuple[int, ...]


class Verification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The distance between the engines' tracks and the bundle's golden tracks on rendered clips."""

    where: str
    """Name of the GPU that ran the engines."""
    when: str
    """UTC, ISO 8601."""
    median_move: float
    """Median distance of visible points from the golden tracks, in pixels of the clips."""
    limit: float
    """Largest accepted ``median_move``."""

    @property
    def passed(self) -> bool:
        """Whether the median move is within the limit; False for NaN."""
        # Written so that NaN fails.
        return self.median_move <= self.limit


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``identity.json``: what a build was made from, by and for."""

    schema_version: int
    target: Target
    version: str
    """Exact version of the library that built it."""
    architectures: Annotated[
        tuple[Annotated[str, Meta(pattern="^sm[0-9]{2,3}$")], ...], Meta(min_length=1)
    ]
    """Compute capabilities it was built for, as in ("sm86", "sm89")."""
    gpu: str | None
    """Name of the GPU it was built on; None where it was built without one."""
    cuda: str | None
    """Newest CUDA that the builder's driver runs; None without a driver."""
    driver: str | None
    """Version of the builder's driver."""
    jetpack: str | None
    """Version of the builder's JetPack."""
    precision: dict[str, dict[str, float]]
    """Share of each data type in the multiply-adds of products and convolutions, by graph."""
    profiles: dict[str, dict[str, tuple[Shape, Shape, Shape]]]
    """Minimum, optimum and maximum shape of each input, by graph."""
    flags: tuple[Flag, ...]
    """Options that widen where the engines load, or that leave their weights out."""
    build_seconds: float
    built_at: str
    """UTC, ISO 8601."""
    host: str | None
    """Name of the computer that built it; None unless the user asked for it to be recorded."""
    bundle_sha256: Sha256
    """Digest of ``bundle.json`` at build time; ``graphs`` decide whether a build fits."""
    graphs: dict[str, Sha256]
    """Digests of the graphs and of their external weights."""
    engines: dict[EngineName, FileRecord]
    """Size and digest of each engine file."""
    verified: Verification | None
    """Verdict on the tracks; None until a machine that can run the engines compared them."""


class _Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's content: the identity, and its digest, which reveals edits."""

    sha256: Sha256
    identity: msgspec.Raw


def engine_folders(bundle: Bundle) -> list[Path]:
    """Return the folders of a bundle's builds, sorted by name."""
    folder = bundle.root / ENGINES
    if not folder.is_dir():
        return []
    # Names that begin with a dot are unfinished builds.
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def settled_folders(bundle: Bundle) -> Iterator[list[Path]]:
    """Yield the folders of a bundle's builds, and again if builds were replaced meanwhile.

    A new build appears before those that it replaces go, and no file of a build changes but its
    verdict. So each list holds whole builds; a reader that finds one gone looks at the next list.
    """
    for _ in range(_READS):
        folders = engine_folders(bundle)
        yield folders
        if engine_folders(bundle) == folders:
            return


def write_identity(folder: Path, identity: Identity) -> None:
    """Write or replace the identity of the build in ``folder``, which must exist.

    Raises:
        InputError: It cannot be written.

    """
    content = msgspec.json.encode(identity)
    sealed = _Sealed(sha256=_digest(content), identity=msgspec.Raw(content))
    # A build that was replaced meanwhile must not come back.
    with staged_file(folder / IDENTITY, make_folders=False) as path:
        path.write_bytes(msgspec.json.encode(sealed) + b"\n")


def build_digest(identity: Identity) -> str:
    """Return the sha256 of an identity without its verdict, which names the build for good.

    It covers the digests of the engines. The verdict is left out, because each machine that loads
    the build may write its own.
    """
    return _digest(msgspec.json.encode(msgspec.structs.replace(identity, verified=None)))


def read_identity(folder: Path, key: PublicKey | None = None) -> Identity:
    """Read the identity of the build in ``folder``; its engines are not checked.

    Args:
        folder: Folder of the build.
        key: Key that the build has to be signed with; None to accept unsigned builds.

    Raises:
        EngineError: The identity is missing, edited, of another schema version, malformed, or not
            signed with the key.

    """
    path = folder / IDENTITY
    try:
        return decode_json(_unsealed(path, key), Identity)
    except MalformedError as error:
        raise EngineError(f"{path} is not an engine's identity: {error}. {_REBUILD}") from error


def load_identity(folder: Path, key: PublicKey | None = None) -> Identity:
    """Read the identity of the build in ``folder`` and check its engines against it.

    Args:
        folder: Folder of the build.
        key: Key that the build has to be signed with; None to accept unsigned builds.

    Raises:
        EngineError: The identity is missing, edited, of another schema version, malformed, or not
            signed with the key; an engine is missing or altered.

    """
    identity = read_identity(folder, key)
    for name, record in identity.engines.items():
        _check_engine(folder / name, record)
    return identity


def graph_digests(bundle: Bundle) -> dict[str, str]:
    """Return the digests of a bundle's graphs and external weights: the sources of engines."""
    files = bundle.manifest.files.items()
    # Bundles inside this bundle have engines of their own.
    own = ((name, record) for name, record in files if "/" not in name)
    others = {ACCEPTANCE, *INT8_GRAPHS.values()}
    return {name: record.sha256 for name, record in own if name not in others}


def mismatches(identity: Identity, bundle: Bundle, machine: Machine) -> list[str]:
    """List why a build does not fit its bundle and this machine, each with a remedy.

    A TensorRT engine loads in the version that built it, and in later ones if it is version
    compatible; on the GPU model that it was built on, and on others if it is hardware compatible
    (developer guide, "Engine Compatibility"). A TensorRT-RTX engine loads only in the release that
    built it, on the compute capabilities that it was built for.
    """
    rebuild = _rebuild_command(identity, bundle, machine)
    found = [
        _compare_graphs(identity, bundle),
        _compare_profiles(identity, bundle),
        _compare_version(identity, machine),
        _compare_architecture(identity, machine),
        _compare_gpu(identity, machine),
    ]
    reasons = [f"{reason}: rebuild with `{rebuild}`" for reason in found if reason]
    if reason := _compare_tracks(identity):
        reasons.append(
            f"{reason}: rebuild with `{rebuild}`; if that does not help, export the bundle with "
            "another --precision"
        )
    if "version_compatible" in identity.flags and not bundle.allow_host_code:
        reasons.append(
            "it brings code for the CPU, which runs with the rights of this process: allow it with "
            "--allow-host-code (allow_host_code in Python and of the ROS 2 node) if you trust who "
            "built it, or build it without --version-compatible"
        )
    if machine.architecture is None:
        reasons.append(
            "no NVIDIA GPU was found, or its driver does not work: track with ONNX Runtime, or run "
            "`vditrack doctor` to find out why"
        )
    return reasons


_READS = 5
"""How often a reader looks again if builds are replaced while it reads."""
_INSTALL = "`vditrack doctor` shows what to install"
_REBUILD = "Delete the folder and build it again with `vditrack build`."


class _Versioned(msgspec.Struct):
    """The schema version, which is read before the other fields are checked."""

    schema_version: int


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _unsealed(path: Path, key: PublicKey | None) -> bytes:
    """Return the content of an unedited identity of this schema version."""
    try:
        file = read_file(path, MAX_JSON_SIZE, follow_links=False)
        sealed = decode_json(file, _Sealed)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read ({error.strerror}), so it is unknown what the engines beside "
            f"it were built for. {_REBUILD}"
        ) from error
    if key is not None:
        _require_signature(path.parent, file, key)
    content = bytes(sealed.identity)
    if sealed.sha256 != _digest(content):
        raise EngineError(f"{path} was edited: its digest does not match its content. {_REBUILD}")
    version = decode_json(content, _Versioned).schema_version
    if version != SCHEMA_VERSION:
        raise EngineError(
            f"{path} has schema version {version}; this vditrack reads {SCHEMA_VERSION}. {_REBUILD}"
        )
    return content


def _require_signature(folder: Path, identity: bytes, key: PublicKey) -> None:
    try:
        check_build_signature(folder, identity, key)
    except BundleError as error:
        raise EngineError(str(error)) from error


def _check_engine(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise EngineError(f"{path} is missing. {_REBUILD}")
    try:
        # Size first: it costs nothing and finds truncated copies.
        size = path.stat().st_size
        intact = size == record.size and file_record(path) == record
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from error
    if size != record.size:
        raise EngineError(
            f"{path} has {size} bytes instead of {record.size}. "
            "Copy it again, or build it again with `vditrack build`."
        )
    if not intact:
        raise EngineError(
            f"{path} was altered: its sha256 differs from the one in {IDENTITY}. "
            "Copy it again, or build it again with `vditrack build`."
        )


def _compare_graphs(identity: Identity, bundle: Bundle) -> str | None:
    now = graph_digests(bundle)
    changed = sorted(
        name for name in {*now, *identity.graphs} if now.get(name) != identity.graphs.get(name)
    )
    return (
        f"built from a different {' and '.join(changed)} than the bundle has now"
        if changed
        else None
    )


def _compare_profiles(identity: Identity, bundle: Bundle) -> str | None:
    inp, frames = bundle.manifest.input, bundle.manifest.encoder.frames
    wanted = (frames, inp.height, inp.width, 3)
    least, _, largest = identity.profiles.get(ENCODER, {}).get("frames", ((), (), ()))
    within = len(least) == len(wanted) == len(largest) and all(
        low <= side <= high for low, side, high in zip(least, wanted, largest, strict=True)
    )
    if within:
        return None
    built = f"{list(least)} to {list(largest)}" if least != largest else f"{list(least)}"
    return f"built for frames {built}; the bundle's are {list(wanted)}"


def _compare_version(identity: Identity, machine: Machine) -> str | None:
    title = TITLES[identity.target]
    here = machine.tensorrt if identity.target == "tensorrt" else machine.tensorrt_rtx
    if here is None and (problem := explain_broken(identity.target.replace("-", "_"))):
        return (
            f"built by {title} {identity.version}, which does not load here: {problem} ({_INSTALL})"
        )
    if here is None:
        return f"built by {title} {identity.version}, which is not installed here ({_INSTALL})"
    if here == identity.version:
        return None
    later = _version_numbers(here) > _version_numbers(identity.version)
    if "version_compatible" in identity.flags and later:
        return None
    return f"built by {title} {identity.version}; this machine has {here}"


def _compare_architecture(identity: Identity, machine: Machine) -> str | None:
    here = machine.architecture
    if here is None or here in identity.architectures:
        return None
    if "ampere_plus" in identity.flags and int(here[2:]) >= 80 and machine.jetpack is None:
        return None
    built = " and ".join(name.upper() for name in identity.architectures)
    return f"built for {built}; this machine has {here.upper()}"


def _compare_gpu(identity: Identity, machine: Machine) -> str | None:
    """Compare GPU models: TensorRT times its kernels on one model, and they may not fit others."""
    widened = {"ampere_plus", "same_compute_capability"} & set(identity.flags)
    same = machine.gpu is None or machine.gpu == identity.gpu
    if identity.target == "tensorrt-rtx" or identity.gpu is None or widened or same:
        return None
    return f"built on a {identity.gpu}; this machine has a {machine.gpu}"


def _compare_tracks(identity: Identity) -> str | None:
    verified = identity.verified
    if verified is None or verified.passed:
        return None
    return (
        f"its tracks differ from the bundle's: on {verified.where} the median point moved by "
        f"{verified.median_move:.2f} pixels; the limit is {verified.limit:g}"
    )


def _version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _rebuild_command(identity: Identity, bundle: Bundle, machine: Machine) -> str:
    """Return the command that builds an engine for this machine, else for its old targets."""
    command = f"vditrack build {bundle.root} --target {identity.target}"
    architectures = machine.architecture or ",".join(identity.architectures)
    # TensorRT builds for the GPU of this machine; only TensorRT-RTX takes architectures.
    return f"{command} --arch {architectures}" if identity.target == "tensorrt-rtx" else command
