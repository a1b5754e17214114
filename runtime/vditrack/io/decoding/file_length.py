"""The length that a file's container announces, to tell a file that was cut short."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_TO_THE_END = 0
"""Size of a box of ISO/IEC 14496-12 that extends to the end of the file."""
_SEGMENT, _EBML = 0x18538067, 0x1A45DFA3
"""Identifiers of Matroska's top-level elements (RFC 9559)."""
_MAX_PARTS = 100_000


def missing_bytes(path: Path) -> int | None:
    """Return the bytes that a file lacks of what its container announces; 0 for a complete one.

    Bytes at the end that cannot be reached, because the parts before them are damaged, count too.

    AVI, WebP, MP4 with its relatives, and Matroska with WebM are known. GIF and PNG have an end
    mark; without it at least 1 byte is missing. None stands for other files, and for those that
    were written without a length, as live recordings are.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"GIF8":
            return 0 if _has_gif_trailer(file) else 1
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return 0 if _has_png_end(file) else 1
        read_end = _find_reader(head)
        end = None if read_end is None else _walk(file, size, read_end)
    return None if end is None else max(0, end - size)


def _find_reader(head: bytes) -> Callable[[BinaryIO], int | None] | None:
    """Return the function that reads the length of a part of a file that begins so."""
    if head[:4] == b"RIFF":
        return _read_riff_length
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _read_box_length
    if head[:4] == _EBML.to_bytes(4, "big"):
        return _read_element_length
    return None


def _walk(file: BinaryIO, size: int, read_length: Callable[[BinaryIO], int | None]) -> int | None:
    """Return where the last of a file's parts ends; None where a part does not say its length."""
    at = 0
    for _ in range(_MAX_PARTS):
        if at >= size:
            return at
        file.seek(at)
        length = read_length(file)
        if length is None:
            return None
        if length == _TO_THE_END:
            # What follows the last part is none of it, as the padding of some recorders; but a
            # fragment is content that cannot be reached.
            return at + 2 * (size - at) if _has_fragment(file, at) else at
        at += length
    return None


def _has_fragment(file: BinaryIO, start: int) -> bool:
    """Return whether a movie fragment of MP4 follows in a file."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content[4:8] == b"ftyp" and content.find(b"moof", start) >= 0


def _read_riff_length(file: BinaryIO) -> int | None:
    head = file.read(8)
    if head[:4] != b"RIFF":
        return _TO_THE_END
    length = int.from_bytes(head[4:], "little")
    # A recorder that was interrupted has left a placeholder.
    return None if length in (0, 0xFFFFFFFF) else 8 + length + length % 2


def _read_box_length(file: BinaryIO) -> int | None:
    head = file.read(8)
    if len(head) < 8 or not head[4:].isascii() or not head[4:].strip(b"\0"):
        return _TO_THE_END
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(file.read(8), "big")
    return _TO_THE_END if length < 8 else length


def _read_element_length(file: BinaryIO) -> int | None:
    start = file.tell()
    head = file.read(4)
    if len(head) < 4 or int.from_bytes(head, "big") not in (_EBML, _SEGMENT):
        return _TO_THE_END
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + file.read(width - 1), "big")
    # All bits set: the length is unknown.
    return None if value == (1 << 7 * width) - 1 else file.tell() - start + value


def _has_gif_trailer(file: BinaryIO) -> bool:
    """Return whether the blocks of a GIF end with a trailer (GIF89a specification)."""
    file.seek(10)
    flags = file.read(3)
    _skip_colour_table(file, flags)
    while (block := file.read(1)) in (b"!", b","):
        if block == b"!":
            file.seek(1, 1)
        else:
            file.seek(8, 1)
            _skip_colour_table(file, file.read(1))
            file.seek(1, 1)
        while (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], 1)
    return block == b";"


def _skip_colour_table(file: BinaryIO, flags: bytes) -> None:
    """Skip the colour table that the flags announce."""
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)


def _has_png_end(file: BinaryIO) -> bool:
    """Return whether the chunks of a PNG end with IEND."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        if head[4:] == b"IEND":
            return True
        if not head[4:].isalpha():
            return False
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False
