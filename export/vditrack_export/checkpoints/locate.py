"""From what a user names to a folder of files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vditrack.errors import InputError
from vditrack_export.checkpoints.hub import Parts, download_checkpoint, parse_hub_id
from vditrack_export.checkpoints.hub_cache import find_snapshot
from vditrack_export.checkpoints.sources import Weights


def locate_weights(
    weights: Weights, hub_id: str, parts: Parts, report: Callable[[str], None]
) -> Weights:
    """Return the weights with the folder of a snapshot in place of a cache or a name on the Hub.

    Args:
        weights: What a user names.
        hub_id: Name of the card's checkpoint on the Hugging Face Hub, ``ORG/NAME``, to choose among
            those in a cache.
        parts: What is read of the checkpoint.
        report: Called with what is done.

    Raises:
        InputError: There is no such checkpoint, or it is not clear which snapshot to take.

    """
    if weights.folder is None:
        return weights
    return replace(weights, folder=_locate(weights.folder, hub_id, parts, report))


def _locate(path: Path, hub_id: str, parts: Parts, report: Callable[[str], None]) -> Path:
    if path.exists():
        return find_snapshot(path, hub_id)
    named = parse_hub_id(str(path))
    if named is None:
        raise InputError(f"no checkpoint folder at {path}. Give it with --weights.")
    return download_checkpoint(named, parts, report)
