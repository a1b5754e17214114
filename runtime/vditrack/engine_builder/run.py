"""Builds the engines of one bundle and writes them with their identity, all or nothing."""

import hashlib
import logging
import os
import platform
import time
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

from rich.progress import Progress

from vditrack.acceptance import verify_tracks
from vditrack.atomic_files import (
    check_disk_space,
    check_file_destination,
    check_folder_destination,
    list_foreign,
    named_option,
    remove_folder,
    staged_folder,
)
from vditrack.bundle.file_checks import file_record
from vditrack.bundle.folder import MANIFEST, Bundle
from vditrack.bundle.manifest import FileRecord
from vditrack.bundle.signature import BUILD_SIGNATURE
from vditrack.engine_builder.engine import BuiltEngine, build_engine, check_graph
from vditrack.engine_builder.library import LibraryObject, import_library
from vditrack.engine_builder.options import BuildOptions, select_architectures
from vditrack.engine_builder.timing import read_timing_cache, write_timing_cache
from vditrack.errors import EngineError, InputError
from vditrack.inference.engine_identity import (
    ENGINE_OF,
    ENGINES,
    IDENTITY,
    SCHEMA_VERSION,
    Identity,
    build_digest,
    engine_folders,
    graph_digests,
    mismatches,
    read_identity,
    write_identity,
)
from vditrack.inference.engine_loading import verify_build
from vditrack.inference.machine import Machine, read_machine
from vditrack.inference.session import AbsentError
from vditrack.inference.tensorrt import RUNTIME_CACHE

_REPLACEABLE = {
    BUILD_SIGNATURE,
    IDENTITY,
    *ENGINE_OF.values(),
    *(str(Path(engine).with_suffix(RUNTIME_CACHE)) for engine in ENGINE_OF.values()),
}
_GRAPH_STEMS = {Path(graph).stem for graph in ENGINE_OF}
"""Names of graphs and of the files with their weights, without suffixes."""
_DIGEST_LENGTH = 8
"""Characters of a build's digest in the name of its folder."""
_LOG = logging.getLogger("vditrack")


class TracksDifferError(EngineError):
    """The engines were built, and their tracks differ from the bundle's."""


def build_bundle(bundle: Bundle, options: BuildOptions, bars: Progress) -> tuple[Path, Identity]:
    """Build a bundle's engines into a new folder below ``engines`` of the bundle.

    The folder appears after all engines are built and, if this machine can run them, after their
    tracks agree with the bundle's. Then earlier builds by the same version of the library, for no
    other architectures, are removed, whatever their folders are called. So a reader finds the
    earlier build or the new one, each whole. Bundles within the bundle are not built.

    Args:
        bundle: A bundle whose files are checked.
        options: Options of the build.
        bars: Progress bars.

    Returns:
        The folder and the identity in it.

    Raises:
        InputError: The target does not support an option, the bundle's folder is not writable or
            has no room for the engines, or a build that would be replaced holds other files.
        TracksDifferError: The engines' tracks differ from the bundle's.
        EngineError: The library does not load, or a build fails.
        BackendError: The engines are for this machine, but do not run on it.
        BundleError: The bundle's acceptance tracks are invalid.

    """
    machine = read_machine()
    trt = import_library(options.target)
    architectures = select_architectures(options, machine)
    check_build(bundle, options, trt.__version__, architectures)
    began = time.perf_counter()
    built = _build_engines(trt, bundle, options, architectures, bars)
    seconds = time.perf_counter() - began
    identity = _make_identity(bundle, options, built, machine, trt.__version__, seconds)
    digest = build_digest(identity)[:_DIGEST_LENGTH]
    name = "-".join([options.target, trt.__version__, *architectures, digest])
    folder = bundle.root / ENGINES / name
    with staged_folder(folder, ()) as staged:
        for graph, engine in built.items():
            (staged / ENGINE_OF[graph]).write_bytes(engine.plan)
        identity = _verify_engines(staged, bundle, identity, machine)
        write_identity(staged, identity)
    replaced = _find_replaced(bundle, options, trt.__version__, architectures)
    _remove_builds([other for other in replaced if other != folder])
    return folder, identity


def check_build(
    bundle: Bundle, options: BuildOptions, version: str, architectures: tuple[str, ...]
) -> None:
    """Fail before the build, which takes minutes, if its result could not be written.

    Args:
        bundle: The bundle.
        options: Options of the build.
        version: Version of the library that builds.
        architectures: Compute capabilities to build for.

    Raises:
        InputError: The bundle's folder is not writable or has no room for the engines, or a build
            that would be replaced holds other files.

    """
    _require_writable(bundle, options)
    _find_replaced(bundle, options, version, architectures)


def _find_replaced(
    bundle: Bundle, options: BuildOptions, version: str, architectures: tuple[str, ...]
) -> list[Path]:
    """Return the builds that a new build replaces, known by their identities.

    Raises:
        InputError: One of them holds files that no build has.

    """
    replaced = []
    for folder in engine_folders(bundle):
        try:
            found = read_identity(folder)
        except EngineError:
            # Whatever it is, it is not the same build.
            continue
        same_library = (found.target, found.version) == (options.target, version)
        if not (same_library and set(found.architectures) <= set(architectures)):
            continue
        if foreign := list_foreign(folder, _REPLACEABLE):
            raise InputError(
                f"{folder} is a build that this one would replace, and it holds another file "
                f"({foreign[0]}). Move that file to another place."
            )
        replaced.append(folder)
    return replaced


def _remove_builds(folders: list[Path]) -> None:
    for folder in folders:
        try:
            remove_folder(folder)
        except (OSError, InputError) as error:
            # The new build is there, and loads first.
            _LOG.warning("%s: the earlier build is not removed: %s", folder, error)


def _verify_engines(folder: Path, bundle: Bundle, identity: Identity, machine: Machine) -> Identity:
    """Return the identity with the verdict on its tracks, or unchanged if it cannot run here."""
    # What it brings is the library's own runtime: this process has just built it.
    bundle = bundle.with_host_code()
    if bundle.acceptance is None or mismatches(identity, bundle, machine):
        return identity
    try:
        _, verified = verify_build(folder, bundle, identity, machine, verify_tracks)
    except AbsentError as error:
        _LOG.info("not verified: %s", error)
        return identity
    if problems := mismatches(verified, bundle, machine):
        raise TracksDifferError(f"nothing was written: {'; '.join(problems)}.")
    return verified


def _make_identity(
    bundle: Bundle,
    options: BuildOptions,
    built: dict[str, BuiltEngine],
    machine: Machine,
    version: str,
    seconds: float,
) -> Identity:
    return Identity(
        schema_version=SCHEMA_VERSION,
        target=options.target,
        version=version,
        architectures=select_architectures(options, machine),
        gpu=machine.gpu,
        cuda=machine.cuda,
        driver=machine.driver,
        jetpack=machine.jetpack,
        precision={graph: engine.shares for graph, engine in built.items()},
        profiles={graph: engine.profile for graph, engine in built.items()},
        flags=options.flags,
        build_seconds=round(seconds, 2),
        built_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        host=platform.node() if options.record_host else None,
        bundle_sha256=file_record(bundle.root / MANIFEST).sha256,
        graphs=graph_digests(bundle),
        engines={ENGINE_OF[graph]: _record(engine.plan) for graph, engine in built.items()},
        verified=None,
    )


def _record(plan: LibraryObject) -> FileRecord:
    content = memoryview(plan)
    return FileRecord(size=content.nbytes, sha256=hashlib.sha256(content).hexdigest())


def _require_writable(bundle: Bundle, options: BuildOptions) -> None:
    if not os.access(bundle.root, os.W_OK):
        raise InputError(
            f"{bundle.root} is not writable, and the engines are written into it. Copy the bundle "
            "to a folder that you can write, and build there."
        )
    check_folder_destination(bundle.root / ENGINES)
    if options.timing_cache is not None:
        with named_option("--timing-cache"):
            check_file_destination(options.timing_cache)
    if not options.strip_weights:
        graphs = [name for name in bundle.manifest.files if name.split(".")[0] in _GRAPH_STEMS]
        check_disk_space(
            bundle.root,
            sum(bundle.manifest.files[name].size for name in graphs),
            "the engines, which hold the weights of the graphs,",
            "Make room, or copy the bundle to another disk and build there.",
        )


def _build_engines(
    trt: ModuleType,
    bundle: Bundle,
    options: BuildOptions,
    architectures: tuple[str, ...],
    bars: Progress,
) -> dict[str, BuiltEngine]:
    """Build the engine of each graph; each build continues the timing cache of the one before."""
    cache = read_timing_cache(options.timing_cache)
    graphs = [name for name in ENGINE_OF if name in bundle.manifest.files]
    claimed = bundle.manifest.precision
    # A graph that cannot be built is refused before the builds of the others, which take minutes.
    for graph in graphs:
        check_graph(trt, bundle.root / graph, claimed, options, architectures)
    built: dict[str, BuiltEngine] = {}
    for graph in bars.track(graphs, description="engines"):
        built[graph] = build_engine(
            trt, bundle.root / graph, claimed, options, architectures, cache, bars
        )
        cache = built[graph].timing_cache
    if options.timing_cache and cache is not None:
        write_timing_cache(options.timing_cache, cache)
    return built
