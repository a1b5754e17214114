"""Whether a JPEG file is complete. Decoders fill in what is missing, and do not say so."""

import re

import av

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2
"""Markers of the frames that FFmpeg decodes, with Huffman codes."""
_SCAN = 0xDA
_SCAN_HEADER = bytes([0xFF, _SCAN])
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment."""
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_STANDARD_TABLE = bytes.fromhex("0002010303020403050504040000017d")
"""Numbers of codes of each length in the Huffman table that encoders use, unless they make one for
the picture (ITU-T T.81, table K.5)."""
_HOLE = bytes(64)
"""Bytes that no picture gives with the standard table: they stand for blocks in which all 63
coefficients are -1. A hole in a file is filled up with zeros."""
_TOLERATED = bytes(64)
"""Bytes by which the data of the last blocks of a sequential file may be short: those of some
webcams are."""


def is_jpeg(data: bytes) -> bool:
    """Return whether the data begin as a JPEG file does."""
    return data.startswith(_START)


def complete_jpeg(data: bytes, *, check_scans: bool) -> bytes | None:
    """Return a JPEG file with its end marker and without bytes after it; None if it is truncated.

    The end marker may be missing, if all blocks of the picture are there.

    Args:
        data: begins as a JPEG file does.
        check_scans: whether a file with an end marker is decoded to find damage inside, which
            takes about half as long as decoding it with OpenCV.

    """
    end, frame = _find_end(data)
    can_check = frame == _PROGRESSIVE or frame in _SEQUENTIAL
    if end is not None:
        whole = data[:end]
        if _has_hole(whole):
            return None
        return None if check_scans and can_check and not _is_intact(whole, frame) else whole
    # A buffer of fixed size is filled up with zeros.
    whole = data.rstrip(b"\0").removesuffix(b"\xff") + _END
    return whole if can_check and _is_intact(whole, frame) else None


def _find_end(data: bytes) -> tuple[int | None, int]:
    """Return where the file ends, if its end marker is there, and the marker of its frame.

    Segments are skipped by their length: a thumbnail in one has markers of its own. Without a scan
    the marker of the frame is 0.
    """
    at, scans, frame = len(_START), 0, 0
    while (found := _NEXT_MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker == _END[1]:
            return (at, frame) if scans else (None, 0)
        if marker in _STANDALONE:
            continue
        frame = marker if marker in _SEQUENTIAL or marker == _PROGRESSIVE else frame
        scans += marker == _SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return None, frame if scans else 0


def _has_hole(data: bytes) -> bool:
    """Return whether a part of the data of a sequential file was replaced by zeros."""
    table = data.rfind(_STANDARD_TABLE)
    scan = data.find(_SCAN_HEADER, table)
    return table >= 0 and scan >= 0 and data.find(_HOLE, scan) >= 0


def _is_intact(data: bytes, frame: int) -> bool:
    """Return whether the data of all blocks of a file with an end marker can be decoded.

    Args:
        data: the file.
        frame: the marker of its frame.

    """
    if frame in _SEQUENTIAL:
        data = data.removesuffix(_END) + _TOLERATED + _END
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    decoder.thread_count = 1
    try:
        frames = decoder.decode(av.Packet(data))
    except av.error.FFmpegError:
        return False
    return len(frames) == 1
