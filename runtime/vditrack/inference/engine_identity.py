"""The identity beside each engine: from what, by what and for what it was built.

An engine does not say whether it will load. Its identity does: it is compared with the bundle and
the machine before the engine is opened, and nothing that does not fit is ever loaded or rebuilt
without being asked for.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.atomic_files import staged_file
from vditrack.bundle.folder import ENCODER, ENCODER_START, FEATURES, GATE, Bundle, file_record
from vditrack.bundle.manifest import FileRecord, Sha256
from vditrack.errors import EngineError
from vditrack.inference.machine import Machine

SCHEMA_VERSION = 1
IDENTITY = "identity.json"
ENGINES = "engines"
"""Folder of a bundle that holds one folder a build."""
EngineName = Literal["encoder.engine", "encoder_start.engine", "features.engine"]
ENGINE_OF: dict[str, EngineName] = {
    ENCODER: "encoder.engine",
    ENCODER_START: "encoder_start.engine",
    FEATURES: "features.engine",
}
"""The engine of each graph."""

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
    """How far the engines' tracks are from the bundle's own, on the gate's rendered clips."""

    where: str
    """GPU that ran them."""
    when: str
    """UTC, ISO 8601."""
    median_move: float
    """Of points, in pixels of the clips."""
    limit: float

    @property
    def passed(self) -> bool:
        # Written so that NaN fails.
        return self.median_move <= self.limit


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``identity.json``."""

    schema_version: int
    target: Target
    version: str
    """Of the library that built it, exact."""
    architectures: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Compute capabilities it was built for, as in ("sm86", "sm89")."""
    gpu: str | None
    """Name of the GPU it was built on; None where it was built without one."""
    cuda: str | None
    driver: str | None
    jetpack: str | None
    precision: dict[str, dict[str, float]]
    """Share of each type in the products (matrices, convolutions, attention), by multiply-adds."""
    profiles: dict[str, dict[str, tuple[Shape, Shape, Shape]]]
    """Least, best and largest shape of each input."""
    flags: tuple[Flag, ...]
    build_seconds: float
    built_at: str
    """UTC, ISO 8601."""
    host: str
    bundle_sha256: Sha256
    """Of ``bundle.json``: where it comes from. Whether it fits is said by the graphs."""
    graphs: dict[str, Sha256]
    """Digests of the graphs and of their external weights."""
    engines: dict[EngineName, FileRecord]
    verified: Verification | None
    """None until its tracks were compared with the bundle's on a machine that can run it."""


class _Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written: the identity, and the digest that shows that nobody edited it."""

    sha256: Sha256
    identity: msgspec.Raw


def engine_folders(bundle: Bundle) -> list[Path]:
    """Folders of a bundle's builds, in the order of their names."""
    folder = bundle.root / ENGINES
    if not folder.is_dir():
        return []
    # Names that begin with a dot are builds that are not finished.
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def write_identity(folder: Path, identity: Identity) -> None:
    """Write or replace the identity of the build in ``folder``."""
    content = msgspec.json.encode(identity)
    sealed = _Sealed(sha256=_digest(content), identity=msgspec.Raw(content))
    with staged_file(folder / IDENTITY) as path:
        path.write_bytes(msgspec.json.encode(sealed) + b"\n")


def load_identity(folder: Path) -> Identity:
    """Read the identity of the build in ``folder`` and check its engines against it.

    Raises:
        EngineError: the identity is missing, edited, of another version or not one; an engine is
            missing or altered.

    """
    path = folder / IDENTITY
    try:
        content = _unsealed(path)
        identity = msgspec.json.decode(content, type=Identity)
    except msgspec.DecodeError as error:
        raise EngineError(f"{path} is not an engine's identity: {error}. {_REBUILD}") from error
    for name, record in identity.engines.items():
        _check_engine(folder / name, record)
    return identity


def graph_digests(bundle: Bundle) -> dict[str, str]:
    """Digests of a bundle's graphs and their external weights: what an engine is built from."""
    files = bundle.manifest.files.items()
    # Bundles within it have engines of their own.
    own = ((name, record) for name, record in files if "/" not in name)
    return {name: record.sha256 for name, record in own if name != GATE}


def mismatches(identity: Identity, bundle: Bundle, machine: Machine) -> list[str]:
    """Say why a build does not fit its bundle and the machine, and what to do; nothing if it fits.

    TensorRT: an engine loads in the version that built it, and in later ones if it was built
    version compatible; on the GPU model that it was built on, and on others if it was built
    hardware compatible (developer guide, "Engine Compatibility"). TensorRT-RTX: in the release
    that built it alone, on the compute capabilities that it was built for.
    """
    rebuild = _rebuild_command(identity, bundle, machine)
    found = [
        _of_graphs(identity, bundle),
        _of_profiles(identity, bundle),
        _of_version(identity, machine),
        _of_architecture(identity, machine),
        _of_gpu(identity, machine),
    ]
    reasons = [f"{reason}: rebuild with `{rebuild}`" for reason in found if reason]
    if reason := _of_tracks(identity):
        reasons.append(
            f"{reason}: rebuild with `{rebuild}`, or, if that moves them too, export the bundle in "
            "another --precision"
        )
    if machine.architecture is None:
        reasons.append(
            "there is no NVIDIA GPU here that a driver can use: track with ONNX Runtime, or ask "
            "`vditrack doctor` what the driver lacks"
        )
    return reasons


_INSTALL = "`vditrack doctor` says what to install"
_REBUILD = "Delete the folder and build it again with `vditrack build`."


class _Versioned(msgspec.Struct):
    """The part of every schema that is read first: another's fields must not be complained of."""

    schema_version: int


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _unsealed(path: Path) -> bytes:
    """Content of an identity that nobody edited, of the version that is read here."""
    try:
        sealed = msgspec.json.decode(path.read_bytes(), type=_Sealed)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read ({error.strerror}): nobody knows what the engines beside it "
            f"were built for. {_REBUILD}"
        ) from error
    content = bytes(sealed.identity)
    if sealed.sha256 != _digest(content):
        raise EngineError(f"{path} was edited: its digest is not that of its content. {_REBUILD}")
    version = msgspec.json.decode(content, type=_Versioned).schema_version
    if version != SCHEMA_VERSION:
        raise EngineError(
            f"{path} has schema version {version}; this vditrack reads {SCHEMA_VERSION}. {_REBUILD}"
        )
    return content


def _check_engine(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise EngineError(f"{path} is missing. {_REBUILD}")
    try:
        # Size first: it is free, and a truncated copy is the usual damage.
        size = path.stat().st_size
        intact = size == record.size and file_record(path) == record
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from error
    if size != record.size:
        raise EngineError(
            f"{path} is cut short or grown: {size} bytes, not the {record.size} that were built. "
            "Copy it again, or build it again with `vditrack build`."
        )
    if not intact:
        raise EngineError(
            f"{path} was altered: its sha256 is not the one in {IDENTITY}. "
            "Copy it again, or build it again with `vditrack build`."
        )


def _of_graphs(identity: Identity, bundle: Bundle) -> str | None:
    now = graph_digests(bundle)
    changed = sorted(
        name for name in {*now, *identity.graphs} if now.get(name) != identity.graphs.get(name)
    )
    return (
        f"built from another {' and '.join(changed)} than the bundle has now" if changed else None
    )


def _of_profiles(identity: Identity, bundle: Bundle) -> str | None:
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


def _of_version(identity: Identity, machine: Machine) -> str | None:
    title = TITLES[identity.target]
    here = machine.tensorrt if identity.target == "tensorrt" else machine.tensorrt_rtx
    if here is None:
        return f"built by {title} {identity.version}, of which no version loads here ({_INSTALL})"
    if here == identity.version:
        return None
    later = _numbers(here) > _numbers(identity.version)
    if "version_compatible" in identity.flags and later:
        return None
    return f"built by {title} {identity.version}; this machine has {here}"


def _of_architecture(identity: Identity, machine: Machine) -> str | None:
    here = machine.architecture
    if here is None or here in identity.architectures:
        return None
    if "ampere_plus" in identity.flags and int(here[2:]) >= 80 and machine.jetpack is None:
        return None
    built = " and ".join(name.upper() for name in identity.architectures)
    return f"built for {built}; this machine has {here.upper()}"


def _of_gpu(identity: Identity, machine: Machine) -> str | None:
    """TensorRT times its kernels on one GPU model; on others of its kind they may not fit."""
    widened = {"ampere_plus", "same_compute_capability"} & set(identity.flags)
    same = machine.gpu is None or machine.gpu == identity.gpu
    if identity.target == "tensorrt-rtx" or identity.gpu is None or widened or same:
        return None
    return f"built on a {identity.gpu}; this machine has a {machine.gpu}"


def _of_tracks(identity: Identity) -> str | None:
    verified = identity.verified
    if verified is None or verified.passed:
        return None
    return (
        f"its tracks are not the bundle's: on {verified.where} the median point moved by "
        f"{verified.median_move:.2f} pixels, at most {verified.limit:g} are allowed"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _rebuild_command(identity: Identity, bundle: Bundle, machine: Machine) -> str:
    """How to get an engine that fits here, or where it was meant for."""
    command = f"vditrack build {bundle.root} --target {identity.target}"
    architectures = machine.architecture or ",".join(identity.architectures)
    # TensorRT builds for the GPU at hand; only TensorRT-RTX is told for which.
    return f"{command} --arch {architectures}" if identity.target == "tensorrt-rtx" else command
