"""The index of an AVI file, which tells the numbers of frames after a damaged chunk.

A demuxer that skips a chunk counts on without it, so all later frames would come too early.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_ENTRY = 16
"""Bytes of an entry of the chunk idx1."""


def read_avi_index(path: Path, stream: int) -> dict[int, int]:
    """Return the numbers of a stream's chunks by the positions of their content in the file.

    The chunks of dropped frames, which are empty, count.

    Args:
        path: An AVI file.
        stream: Index of the stream.

    Returns:
        Numbers from 0; empty without an index.

    """
    if not path.stat().st_size:
        return {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        movie, index = content.find(b"movi"), content.rfind(b"idx1")
        if movie < 0 or index < 0:
            return {}
        length = int.from_bytes(content[index + 4 : index + 8], "little")
        entries = content[index + 8 : index + 8 + length]
    wanted = f"{stream:02}".encode()
    offsets = [
        int.from_bytes(entries[at + 8 : at + 12], "little")
        for at in range(0, len(entries) - _ENTRY + 1, _ENTRY)
        if entries[at : at + 2] == wanted and entries[at + 2 : at + 4] in (b"dc", b"db")
    ]
    if not offsets:
        return {}
    # Offsets are those in the file, or from the list of chunks on.
    base = 8 if offsets[0] > movie else movie + 8
    return {base + offset: number for number, offset in enumerate(offsets)}
