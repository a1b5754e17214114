"""Verdicts on builds that are there: their tracks beside the bundle's, whenever one asks."""

from pathlib import Path

import msgspec

from vditrack.acceptance import verify_tracks
from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.errors import EngineError, InputError, VditrackError
from vditrack.inference.engine_identity import Identity, engine_folders, load_identity, mismatches
from vditrack.inference.engine_loading import record_verdict, verify_build
from vditrack.inference.machine import Machine, read_machine


def verify_builds(bundle: Bundle) -> list[str]:
    """Verify every build that would load here but for an earlier verdict, and record what is found.

    Returns:
        Why builds failed; none if all passed.

    Raises:
        InputError: no build would load here, or the bundle has no tracks to compare with.

    """
    if bundle.acceptance is None:
        raise InputError(
            f"{bundle.root} has no {ACCEPTANCE}: there are no tracks to compare an engine's with. "
            "Export it again; with random weights it tracks nothing, and has none."
        )
    machine = read_machine()
    fitting = [
        (folder, identity)
        for folder in engine_folders(bundle)
        if (identity := _fitting(folder, bundle, machine))
    ]
    if not fitting:
        raise InputError(
            f"no build of {bundle.root} would load here, so none can be verified. "
            "`vditrack inspect` without --verify says why."
        )
    reasons: list[str] = []
    for folder, identity in fitting:
        try:
            _, verified = verify_build(folder, bundle, identity, machine, verify_tracks)
        except VditrackError as error:
            reasons.append(f"{folder.name}: {error}")
            continue
        record_verdict(folder, verified)
        reasons += [f"{folder.name}: {reason}" for reason in mismatches(verified, bundle, machine)]
    return reasons


def _fitting(folder: Path, bundle: Bundle, machine: Machine) -> Identity | None:
    """Identity of a build without its verdict; None where it would not load anyhow."""
    try:
        identity = msgspec.structs.replace(load_identity(folder), verified=None)
    except EngineError:
        return None
    return None if mismatches(identity, bundle, machine) else identity
