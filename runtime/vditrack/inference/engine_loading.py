"""A build's engines as a bundle's graphs: compared with the machine, proved, and verified."""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from vditrack.bundle.folder import GATE, Bundle
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
from vditrack.inference.smoke_run import proved
from vditrack.inference.tensorrt import EngineSession

Verify = Callable[[Bundle, OpenGraph, str], Verification]
"""Compares the tracks that graphs give, on the GPU named, with the bundle's own."""

_LOG = logging.getLogger("vditrack")


def load_build(folder: Path, bundle: Bundle, verify: Verify | None) -> tuple[OpenGraph, Identity]:
    """Open the engines of a build that fits this machine.

    Args:
        folder: of the build.
        bundle: that it belongs to.
        verify: compares its tracks with the bundle's, if that was not done on this GPU before. What
            it finds is kept in the build's identity.

    Returns:
        What opens them, and their identity.

    Raises:
        EngineError: the build is damaged, does not fit, or tracks otherwise than the bundle.
        BackendError: an engine does not load or does not run.
        BundleError: the tracks to compare with are not such.

    """
    identity, machine = load_identity(folder), read_machine()
    _require_fit(identity, bundle, machine)
    if bundle.gate is None:
        _LOG.debug("%s: not verified, %s has no %s", folder.name, bundle.root, GATE)
    if bundle.gate is None or verify is None or _verified_on(identity, machine):
        return open_build(folder, bundle, identity), identity
    open_graph, identity = verified_build(folder, bundle, identity, machine, verify)
    record(folder, identity)
    _require_fit(identity, bundle, machine)
    return open_graph, identity


def open_build(folder: Path, bundle: Bundle, identity: Identity) -> OpenGraph:
    """Open and prove the engines of a build, whatever the machine."""

    def open_graph(graph: Path) -> EngineSession:
        return EngineSession(
            folder / ENGINE_OF[graph.name],
            identity.target,
            host_code="version_compatible" in identity.flags,
            weights=graph if "strip_weights" in identity.flags else None,
        )

    return proved(bundle, open_graph)


def verified_build(
    folder: Path, bundle: Bundle, identity: Identity, machine: Machine, verify: Verify
) -> tuple[OpenGraph, Identity]:
    """Open and prove a build's engines, and compare their tracks with the bundle's.

    Returns:
        What opens them, and the identity with the verdict, which `mismatches` reads.

    Raises:
        BackendError: an engine does not load or does not run.
        BundleError: the tracks to compare with are not such.

    """
    open_graph = open_build(folder, bundle, identity)
    _LOG.info("%s: comparing its tracks with the bundle's", folder.name)
    verified = verify(bundle, open_graph, str(machine.gpu))
    _LOG.info(
        "%s: the median point moves by %.3f pixels, at most %g are allowed",
        folder.name,
        verified.median_move,
        verified.limit,
    )
    return open_graph, msgspec.structs.replace(identity, verified=verified)


def record(folder: Path, identity: Identity) -> None:
    """Keep a verdict; where bundles may only be read, it is found again at the next load."""
    try:
        write_identity(folder, identity)
    except (OSError, InputError) as error:
        _LOG.warning("%s: what was found of its tracks is not kept: %s", folder.name, error)


def _require_fit(identity: Identity, bundle: Bundle, machine: Machine) -> None:
    if problems := mismatches(identity, bundle, machine):
        raise EngineError("; ".join(problems))


def _verified_on(identity: Identity, machine: Machine) -> bool:
    """Whether it was verified on such a GPU: another one runs other code of the same engine."""
    return identity.verified is not None and identity.verified.where == str(machine.gpu)
