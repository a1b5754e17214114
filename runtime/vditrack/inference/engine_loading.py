"""Loading of built engines: identity check, smoke run, comparison of their tracks."""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.errors import EngineError, InputError
from vditrack.inference.engine_identity import (
    ENGINE_OF,
    Identity,
    Verification,
    load_identity,
    mismatches,
    write_identity,
)
from vditrack.inference.machine import Machine, read_machine
from vditrack.inference.session import OpenGraph
from vditrack.inference.smoke_run import open_with_smoke_run
from vditrack.inference.tensorrt import EngineSession

Verify = Callable[[Bundle, OpenGraph, str], Verification]
"""Compares the tracks that graphs give on the named GPU with the bundle's golden tracks."""

_LOG = logging.getLogger("vditrack")


def load_build(folder: Path, bundle: Bundle, verify: Verify | None) -> tuple[OpenGraph, Identity]:
    """Open the engines of a build that fits this machine.

    Args:
        folder: Folder of the build.
        bundle: The bundle that it was built from.
        verify: Compares the engines' tracks with the bundle's, if that was not done on this GPU
            before. The verdict is stored in the build's identity.

    Returns:
        A function that opens the engines, and their identity.

    Raises:
        EngineError: The build is damaged, does not fit, or its tracks differ from the bundle's.
        BackendError: An engine does not load or does not run.
        BundleError: The bundle's golden tracks cannot be read.

    """
    identity, machine = load_identity(folder), read_machine()
    _require_fit(identity, bundle, machine)
    if bundle.acceptance is None:
        _LOG.debug("%s: not verified because %s has no %s", folder.name, bundle.root, ACCEPTANCE)
    if bundle.acceptance is None or verify is None or _verified_on(identity, machine):
        return open_build(folder, bundle, identity), identity
    open_graph, identity = verify_build(folder, bundle, identity, machine, verify)
    record_verdict(folder, identity)
    _require_fit(identity, bundle, machine)
    return open_graph, identity


def open_build(folder: Path, bundle: Bundle, identity: Identity) -> OpenGraph:
    """Return a function that opens the engines of a build, after a smoke run.

    Whether the build fits the machine is not checked.
    """

    def open_graph(graph: Path) -> EngineSession:
        return EngineSession(
            folder / ENGINE_OF[graph.name],
            identity.target,
            host_code="version_compatible" in identity.flags,
            weights=graph if "strip_weights" in identity.flags else None,
        )

    return open_with_smoke_run(bundle, open_graph)


def verify_build(
    folder: Path, bundle: Bundle, identity: Identity, machine: Machine, verify: Verify
) -> tuple[OpenGraph, Identity]:
    """Open a build's engines and compare their tracks with the bundle's.

    Returns:
        A function that opens the engines, and the identity with the verdict, which `mismatches`
        reads.

    Raises:
        BackendError: An engine does not load or does not run.
        BundleError: The bundle's golden tracks cannot be read.

    """
    open_graph = open_build(folder, bundle, identity)
    _LOG.info("%s: comparing its tracks with the bundle's tracks", folder.name)
    verified = verify(bundle, open_graph, str(machine.gpu))
    _LOG.info(
        "%s: the median point moved by %.3f pixels; the limit is %g",
        folder.name,
        verified.median_move,
        verified.limit,
    )
    return open_graph, msgspec.structs.replace(identity, verified=verified)


def record_verdict(folder: Path, identity: Identity) -> None:
    """Store an identity with its verdict; if the bundle is read-only, log a warning instead."""
    try:
        write_identity(folder, identity)
    except (OSError, InputError) as error:
        _LOG.warning("%s: the verdict on its tracks is not stored: %s", folder.name, error)


def _require_fit(identity: Identity, bundle: Bundle, machine: Machine) -> None:
    if problems := mismatches(identity, bundle, machine):
        raise EngineError("; ".join(problems))


def _verified_on(identity: Identity, machine: Machine) -> bool:
    """Return whether it was verified on this GPU model: others run other code of an engine."""
    return identity.verified is not None and identity.verified.where == str(machine.gpu)
