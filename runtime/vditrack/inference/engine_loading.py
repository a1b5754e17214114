"""Loading of built engines: identity check, smoke run, comparison of their tracks."""

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec

from vditrack.bundle.digest_cache import cache_folder
from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.bundle.manifest import FileRecord
from vditrack.errors import EngineError
from vditrack.inference.cuda import Gpu
from vditrack.inference.engine_identity import (
    ENGINE_OF,
    Identity,
    Verification,
    mismatches,
)
from vditrack.inference.machine import Machine, read_machine
from vditrack.inference.own_verdicts import load_believed_identity, record_verdict
from vditrack.inference.session import OpenGraph
from vditrack.inference.smoke_run import open_with_smoke_run
from vditrack.inference.tensorrt import RUNTIME_CACHE, EngineSession

Verify = Callable[[Bundle, OpenGraph, str], Verification]
"""Compares the tracks that graphs give on the named GPU with the bundle's golden tracks."""

_LOG = logging.getLogger("vditrack")


def load_build(
    folder: Path, bundle: Bundle, verify: Verify | None, device: int = 0
) -> tuple[OpenGraph, Identity]:
    """Open the engines of a build that fits this machine.

    Args:
        folder: Folder of the build.
        bundle: The bundle that it was built from.
        verify: Compares the engines' tracks with the bundle's, if that was not done on this GPU
            before. The verdict is stored in the build's identity, or in the user's cache folder if
            a signature is required.
        device: Number of the GPU, as CUDA counts.

    Returns:
        A function that opens the engines, and their identity.

    Raises:
        EngineError: The build is damaged, not signed as the bundle has to be, does not fit, or its
            tracks differ from the bundle's.
        BackendError: An engine does not load or does not run.
        BundleError: The bundle's golden tracks cannot be read.

    """
    identity, machine = load_believed_identity(folder, bundle), read_machine(device)
    _require_fit(identity, bundle, machine)
    if bundle.acceptance is None:
        _LOG.debug("%s: not verified because %s has no %s", folder.name, bundle.root, ACCEPTANCE)
    if bundle.acceptance is None or verify is None or _verified_on(identity, machine):
        return open_build(folder, bundle, identity, device), identity
    open_graph, identity = verify_build(folder, bundle, identity, machine, verify, device)
    record_verdict(folder, bundle, identity)
    _require_fit(identity, bundle, machine)
    return open_graph, identity


def open_build(folder: Path, bundle: Bundle, identity: Identity, device: int = 0) -> OpenGraph:
    """Return a function that opens the engines of a build on a GPU, after a smoke run.

    Whether the build fits the machine is not checked.
    """

    @cache
    def open_gpu() -> Gpu:
        return Gpu(device)

    def open_graph(graph: Path) -> EngineSession:
        name = ENGINE_OF[graph.name]
        return EngineSession(
            folder / name,
            identity.target,
            open_gpu=open_gpu,
            record=identity.engines.get(name),
            cache=_cache_path(folder / name, identity.engines[name], bundle),
            # Never because the identity says so: it comes with the bundle.
            host_code=bundle.allow_host_code and "version_compatible" in identity.flags,
            weights=graph if "strip_weights" in identity.flags else None,
        )

    return open_with_smoke_run(bundle, open_graph)


def _cache_path(engine: Path, record: FileRecord, bundle: Bundle) -> Path | None:
    """Return the file of kernels that TensorRT-RTX compiles for an engine; None to keep none.

    Kernels are code. Where a signature is required, they are not read from the bundle, whose
    signature does not cover them, but from the user's own cache folder.
    """
    if bundle.key is None:
        return engine.with_suffix(RUNTIME_CACHE)
    caches = cache_folder()
    if caches is None:
        return None
    try:
        (caches / "kernels").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _LOG.debug("kernels of TensorRT-RTX are not kept: %s", error)
        return None
    return caches / "kernels" / f"{record.sha256}{RUNTIME_CACHE}"


def verify_build(
    folder: Path,
    bundle: Bundle,
    identity: Identity,
    machine: Machine,
    verify: Verify,
    device: int = 0,
) -> tuple[OpenGraph, Identity]:
    """Open a build's engines and compare their tracks with the bundle's.

    Returns:
        A function that opens the engines, and the identity with the verdict, which `mismatches`
        reads.

    Raises:
        BackendError: An engine does not load or does not run.
        BundleError: The bundle's golden tracks cannot be read.

    """
    open_graph = open_build(folder, bundle, identity, device)
    _LOG.info("%s: comparing its tracks with the bundle's tracks", folder.name)
    verified = verify(bundle, open_graph, str(machine.gpu))
    _LOG.info(
        "%s: the median point moved by %.3f pixels; the limit is %g",
        folder.name,
        verified.median_move,
        verified.limit,
    )
    return open_graph, msgspec.structs.replace(identity, verified=verified)


def _require_fit(identity: Identity, bundle: Bundle, machine: Machine) -> None:
    if problems := mismatches(identity, bundle, machine):
        raise EngineError("; ".join(problems))


def _verified_on(identity: Identity, machine: Machine) -> bool:
    """Return whether it was verified on this GPU model: others run other code of an engine."""
    return identity.verified is not None and identity.verified.where == str(machine.gpu)
