"""Verifies existing builds: compares their tracks with the bundle's."""

from pathlib import Path

import msgspec

from vditrack.acceptance import verify_tracks
from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.engine_builder.parts import list_parts, part_folder
from vditrack.errors import EngineError, InputError, VditrackError
from vditrack.inference.engine_identity import Identity, engine_folders, load_identity, mismatches
from vditrack.inference.engine_loading import verify_build
from vditrack.inference.machine import Machine, read_machine
from vditrack.inference.own_verdicts import record_verdict


def verify_builds(bundle: Bundle, device: int = 0) -> list[str]:
    """Verify every build that fits this machine, and record the verdicts.

    Builds of the bundles within the bundle are verified too. An earlier verdict is ignored and
    replaced.

    Args:
        bundle: The bundle.
        device: Number of the GPU that runs the engines, as CUDA counts.

    Returns:
        Reasons why builds failed; empty if all passed.

    Raises:
        InputError: No build fits this machine, or the bundle has no tracks to compare with.

    """
    parts = {
        part_folder(part): own
        for part, own in list_parts(bundle).items()
        if own.acceptance is not None
    }
    if not parts:
        raise InputError(
            f"{bundle.root} has no {ACCEPTANCE}, so there are no tracks to compare the engines' "
            "with. Export the bundle again, with real weights: random weights give no tracks."
        )
    machine = read_machine(device)
    fitting = [
        (f"{within}{folder.name}", folder, own, identity)
        for within, own in parts.items()
        for folder in engine_folders(own)
        if (identity := _load_fitting_identity(folder, own, machine))
    ]
    if not fitting:
        raise InputError(
            f"no build of {bundle.root} loads on this machine, so none can be verified. "
            "`vditrack inspect` without --verify lists the reasons."
        )
    reasons: list[str] = []
    for name, folder, own, identity in fitting:
        try:
            _, verified = verify_build(folder, own, identity, machine, verify_tracks, device)
        except VditrackError as error:
            reasons.append(f"{name}: {error}")
            continue
        record_verdict(folder, own, verified)
        reasons += [f"{name}: {reason}" for reason in mismatches(verified, own, machine)]
    return reasons


def _load_fitting_identity(folder: Path, bundle: Bundle, machine: Machine) -> Identity | None:
    """Return the identity without its verdict; None if the build does not fit this machine."""
    try:
        identity = msgspec.structs.replace(load_identity(folder, bundle.key), verified=None)
    except EngineError:
        return None
    return None if mismatches(identity, bundle, machine) else identity
