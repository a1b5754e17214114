"""All engines of a bundle, and their identity beside them: at once or not at all."""

import logging
import os
import platform
import time
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

from rich.progress import Progress

from vditrack.acceptance import verify_tracks
from vditrack.atomic_files import staged_folder
from vditrack.bundle.folder import MANIFEST, Bundle, file_record
from vditrack.engine_builder.engine import Built, build_engine
from vditrack.engine_builder.library import import_library
from vditrack.engine_builder.options import Options, architectures_for
from vditrack.engine_builder.timing import read_timing_cache, write_timing_cache
from vditrack.errors import EngineError, InputError
from vditrack.inference.engine_identity import (
    ENGINE_OF,
    ENGINES,
    IDENTITY,
    SCHEMA_VERSION,
    Identity,
    graph_digests,
    mismatches,
    write_identity,
)
from vditrack.inference.engine_loading import verify_build
from vditrack.inference.machine import Machine, read_machine
from vditrack.inference.session import AbsentError
from vditrack.inference.tensorrt import RUNTIME_CACHE

_REPLACEABLE = {
    IDENTITY,
    *ENGINE_OF.values(),
    *(str(Path(engine).with_suffix(RUNTIME_CACHE)) for engine in ENGINE_OF.values()),
}
_LOG = logging.getLogger("vditrack")


def build_bundle(bundle: Bundle, options: Options, bars: Progress) -> tuple[Path, Identity]:
    """Build a bundle's engines into ``engines/NAME`` of its folder.

    Nothing is written before all are built, and, where this machine can run them, have given the
    bundle's tracks; a build of the same name is replaced.

    Args:
        bundle: checked.
        options: as asked for.
        bars: show how far it is.

    Returns:
        The folder, and the identity in it.

    Raises:
        InputError: the target lacks an option, or the bundle's folder cannot be written.
        EngineError: the library does not load or does not build, or the engines track otherwise
            than the bundle.
        BackendError: the engines are for this machine, and do not run on it.
        BundleError: the tracks to compare with are not such.

    """
    machine = read_machine()
    trt = import_library(options.target)
    architectures = architectures_for(options, machine)
    _require_writable(bundle.root)
    began = time.perf_counter()
    built = _build_each(trt, bundle, options, architectures, bars)
    seconds = time.perf_counter() - began
    name = "-".join([options.target, trt.__version__, *architectures])
    folder = bundle.root / ENGINES / name
    with staged_folder(folder, _REPLACEABLE) as staged:
        for graph, engine in built.items():
            (staged / ENGINE_OF[graph]).write_bytes(engine.plan)
        identity = _identity(staged, bundle, options, built, machine, trt.__version__, seconds)
        identity = _verified(staged, bundle, identity, machine)
        write_identity(staged, identity)
    return folder, identity


def _verified(folder: Path, bundle: Bundle, identity: Identity, machine: Machine) -> Identity:
    """Return the identity with the verdict on its tracks, where this machine can run it."""
    if bundle.acceptance is None or mismatches(identity, bundle, machine):
        return identity
    try:
        _, verified = verify_build(folder, bundle, identity, machine, verify_tracks)
    except AbsentError as error:
        _LOG.info("not verified: %s", error)
        return identity
    if problems := mismatches(verified, bundle, machine):
        raise EngineError(f"nothing was written: {'; '.join(problems)}.")
    return verified


def _identity(
    folder: Path,
    bundle: Bundle,
    options: Options,
    built: dict[str, Built],
    machine: Machine,
    version: str,
    seconds: float,
) -> Identity:
    return Identity(
        schema_version=SCHEMA_VERSION,
        target=options.target,
        version=version,
        architectures=architectures_for(options, machine),
        gpu=machine.gpu,
        cuda=machine.cuda,
        driver=machine.driver,
        jetpack=machine.jetpack,
        precision={graph: engine.shares for graph, engine in built.items()},
        profiles={graph: engine.profile for graph, engine in built.items()},
        flags=options.flags,
        build_seconds=round(seconds, 2),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        host=platform.node(),
        bundle_sha256=file_record(bundle.root / MANIFEST).sha256,
        graphs=graph_digests(bundle),
        engines={ENGINE_OF[graph]: file_record(folder / ENGINE_OF[graph]) for graph in built},
        verified=None,
    )


def _require_writable(folder: Path) -> None:
    """Refuse before the minutes of the build what would fail after them."""
    if not os.access(folder, os.W_OK):
        raise InputError(
            f"{folder} cannot be written, and its engines belong into it. Copy the bundle to a "
            "folder of your own and build there."
        )


def _build_each(
    trt: ModuleType,
    bundle: Bundle,
    options: Options,
    architectures: tuple[str, ...],
    bars: Progress,
) -> dict[str, Built]:
    """Build the engine of each graph; the timing cache goes from one to the next."""
    cache = read_timing_cache(options.timing_cache)
    graphs = [name for name in ENGINE_OF if name in bundle.manifest.files]
    claimed = bundle.manifest.precision
    built: dict[str, Built] = {}
    for graph in bars.track(graphs, description="engines"):
        built[graph] = build_engine(
            trt, bundle.root / graph, claimed, options, architectures, cache, bars
        )
        cache = built[graph].timing_cache
    if options.timing_cache and cache is not None:
        write_timing_cache(options.timing_cache, cache)
    return built
