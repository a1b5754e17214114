"""The files of the masks that say where points of recordings are put."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vditrack.annotation.sources import Source


def locate_mask(pattern: str, source: Source) -> Path:
    """Return the path of a recording's mask: relative to the folder that the recording is in."""
    path = source.path if source.path.name else source.path.resolve()
    topic = (source.topic or "").strip("/").replace("/", "_")
    names = {"{stem}": path.stem, "{topic}": topic, "{episode}": str(source.episode)}
    for place, name in names.items():
        pattern = pattern.replace(place, name)
    return path.parent / pattern


def identify_mask(pattern: str, source: Source) -> str | None:
    """Return the SHA-256 of a recording's mask; None if it cannot be read."""
    try:
        return hashlib.sha256(locate_mask(pattern, source).read_bytes()).hexdigest()
    except OSError:
        # It is reported when the recording is annotated.
        return None
