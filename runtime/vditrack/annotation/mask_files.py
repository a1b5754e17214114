"""The files of the masks that say where points of recordings are put."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vditrack.annotation.failures import SourceError
from vditrack.annotation.recordings import Source
from vditrack.annotation.storage import Location, read_bytes


def locate_mask(pattern: str, source: Source) -> Path:
    """Return the path of a recording's mask: relative to the folder that the recording is in."""
    path = source.path if source.path.name else source.path.resolve()
    return path.parent / _fill_pattern(pattern, source)


def locate_remote_mask(pattern: str, source: Source) -> Location | None:
    """Return where the mask of a recording in a storage is; None if it is on a disk."""
    filled = _fill_pattern(pattern, source)
    if source.remote is None or Path(filled).is_absolute():
        return None
    return source.remote.location.parent().child(filled)


def identify_mask(pattern: str, source: Source) -> str | None:
    """Return the SHA-256 of a recording's mask; None if it cannot be read.

    Raises:
        InputError: Its storage cannot be used.

    """
    remote = None if source.is_copied else locate_remote_mask(pattern, source)
    try:
        content = (
            locate_mask(pattern, source).read_bytes() if remote is None else read_bytes(remote)
        )
    except SourceError as error:
        if error.kind != "absent":
            raise
        return None
    except OSError:
        # It is reported when the recording is annotated.
        return None
    return hashlib.sha256(content).hexdigest()


def _fill_pattern(pattern: str, source: Source) -> str:
    """Return the path of a mask without places for names."""
    path = source.path if source.path.name else source.path.resolve()
    topic = (source.topic or "").strip("/").replace("/", "_")
    names = {"{stem}": path.stem, "{topic}": topic, "{episode}": str(source.episode)}
    for place, name in names.items():
        pattern = pattern.replace(place, name)
    return pattern
