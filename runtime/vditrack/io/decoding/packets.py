"""Reads the packets of a stream, and finds damage that no decoder reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import av.container
import av.video
from av.stream import Stream

from vditrack.io.decoding.avi_index import read_avi_index
from vditrack.io.decoding.orientation import read_exif_orientation
from vditrack.io.decoding.reliability import Packet

_ZEROS = re.compile(rb"\0{16}")
"""A run that entropy coding does not produce: unreadable sectors are filled with zeros."""
_ZEROS_IN_BYTE_STREAM = re.compile(rb"\0{16,}[^\0\1]")
"""The same where units may have zeros before the next start code (ISO/IEC 14496-10, annex B)."""
_NO_ZERO_RUNS = frozenset(
    {"av1", "ffv1", "h264", "hevc", "libaom-av1", "libdav1d", "libvpx", "libvpx-vp9", "vp8", "vp9"}
)
"""Decoders of codecs whose packets have no such run."""
_HOLE = 64
"""Bytes between two packets of Matroska, beyond their headers, from which on content was lost."""
_MAX_ERRORS = 64
"""Errors of the demuxer in a row after which the rest of the file counts as unreadable."""


class PacketReader:
    """Reads the packets of a video stream in the order of the file, and notes damage."""

    def __init__(
        self, path: Path, container: av.container.InputContainer, stream: av.video.VideoStream
    ) -> None:
        """Start before the first packet.

        Args:
            path: The file.
            container: The open file.
            stream: A stream of it.

        """
        self._container, self._stream = container, stream
        self._matroska = "matroska" in container.format.name
        self._file_size = path.stat().st_size
        self._read_until: int | None = None
        is_avi = container.format.name == "avi"
        self._numbers = read_avi_index(path, stream.index) if is_avi else {}
        self._first_skipped: int | None = None
        self._skipped = 0
        codec = stream.codec_context
        self._is_jpeg = codec.name == "mjpeg"
        self._check_zeros = codec.name in _NO_ZERO_RUNS
        # MP4 and Matroska store the length of each unit; byte streams have start codes.
        byte_stream = codec.name in {"h264", "hevc"} and (codec.extradata or b"")[:1] != b"\1"
        self._zeros = _ZEROS_IN_BYTE_STREAM if byte_stream else _ZEROS

    @property
    def unread_bytes(self) -> int:
        """Bytes of a Matroska file after the last packet; 0 for other files."""
        return 0 if self._read_until is None else self._file_size - self._read_until

    def read(self) -> Iterator[tuple[av.Packet[av.video.VideoStream], Packet]]:
        """Yield the packets of the stream, each with what is known of it."""
        hole = before_damaged = False
        for packet in self._demux():
            if not packet.size:
                continue
            hole |= self._follows_hole(packet)
            if packet.stream_index != self._stream.index:
                continue
            skipped_before, skipped = self._skipped, self._count_skipped(packet)
            shift = float(skipped * packet.time_base)
            time = None if packet.pts is None else float(packet.pts * packet.time_base) + shift
            damaged = packet.is_corrupt or self._is_zeroed(packet)
            # The rest of a packet of which the head, with its time, was lost.
            damaged |= before_damaged and time is None
            known = Packet(
                time=time,
                duration=float((packet.duration or 0) * packet.time_base),
                size=packet.size,
                key=packet.is_keyframe,
                damaged=damaged,
                disposable=packet.is_disposable,
                # A demuxer of a transport stream reports what was lost on the packet that follows.
                after_hole=hole or packet.is_corrupt or skipped > skipped_before,
                shift=shift,
                exif=read_exif_orientation(bytes(packet)) if self._is_jpeg else None,
            )
            hole, before_damaged = False, damaged
            yield cast("av.Packet[av.video.VideoStream]", packet), known

    def _demux(self) -> Iterator[av.Packet[Stream]]:
        """Yield the packets; go on after errors of the demuxer."""
        # In Matroska the packets of all streams show which bytes belong to none.
        streams = [] if self._matroska else [self._stream]
        for _ in range(_MAX_ERRORS):
            try:
                yield from self._container.demux(*streams)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                continue
            return

    def _follows_hole(self, packet: av.Packet[Stream]) -> bool:
        if not self._matroska or packet.pos is None or packet.pos < 0:
            return False
        before, self._read_until = self._read_until, packet.pos + packet.size
        return before is not None and packet.pos - before > _HOLE

    def _count_skipped(self, packet: av.Packet[Stream]) -> int:
        """Return the chunks of an AVI file before a packet that the demuxer did not count."""
        number = self._numbers.get(-1 if packet.pos is None else packet.pos)
        if number is not None and packet.dts is not None:
            ahead = number - packet.dts
            self._first_skipped = ahead if self._first_skipped is None else self._first_skipped
            self._skipped = max(self._skipped, ahead - self._first_skipped)
        return self._skipped

    def _is_zeroed(self, packet: av.Packet[Stream]) -> bool:
        if not self._check_zeros:
            return False
        return self._zeros.search(bytes(packet)) is not None
