"""Which decoded frames can be trusted, by what the demuxer and the decoder report.

A frame is predicted from frames before it. After damage a decoder goes on with wrong pictures, and
mostly does not say so, up to the next key frame. Everything from a damaged packet to the next key
frame is therefore left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from vditrack.io.clip import Gap

_COVERED = 0.75
"""Part of the usual interval within which a frame shows the time of a packet. Some packets have no
frame of their own: second fields, and invisible reference frames."""
_JUMP = 1.5
"""Usual intervals between packets from which on packets are missing."""
_NEIGHBOURS = 16
"""Packets beside a hole in the file, or a key frame, whose times are looked at; more than are
stored out of order."""
MAX_MISSING = 10_000
"""Frames that are counted as missing in one hole; a damaged time may be anything."""
_WILD = 60.0
"""Seconds by which the time of a packet differs from those before and after it if it is damaged."""
_UNCHANGED = 20
"""Bytes up to which a packet without a frame says that the picture did not change."""


@dataclass(slots=True)
class Packet:
    """A compressed frame, as it was read."""

    time: float | None
    """Presentation time in seconds; None where the file has none."""
    duration: float
    """Seconds; 0 where the file has none."""
    size: int
    """Bytes."""
    key: bool
    """Whether decoding can start here, by the container."""
    damaged: bool = False
    """Whether the demuxer reports damage, or the content shows some."""
    disposable: bool = False
    """Whether no other frame is predicted from it."""
    after_hole: bool = False
    """Whether content of the file before it was lost, of this stream or of another."""
    shift: float = 0.0
    """Seconds by which its time is later than the demuxer says, after chunks that it skipped."""
    exif: int | None = None
    """Orientation in the EXIF data of a JPEG, 1 to 8; None if it has none."""


@dataclass(slots=True)
class DecodedFrame:
    """A frame, as the decoder returned it."""

    packet: int
    """Index of its packet, in the order of the file."""
    time: float | None
    """Presentation time in seconds; None where the file has none."""
    key: bool
    """Whether it is predicted from no other frame."""
    corrupt: bool
    """Whether the decoder reports damage."""
    position: int | None
    """Index in the clip; None if the frame is outside the requested part."""


@dataclass
class DecodingRecord:
    """What was read from a file: all packets, and the frames in the order of the decoder."""

    packets: list[Packet] = field(default_factory=list)
    frames: list[DecodedFrame] = field(default_factory=list)
    errors: int = 0
    """Packets that the decoder refused."""

    @property
    def usual_interval(self) -> float | None:
        """Median time between packets, in seconds; None below two packets."""
        times = _sorted_times(self.packets)
        steps = [after - before for before, after in pairwise(times)]
        return median(steps) if steps else None


def find_first_key(record: DecodingRecord) -> int:
    """Return the index of the first packet at which decoding can start."""
    keys = (index for index, packet in enumerate(record.packets) if packet.key)
    return next(keys, len(record.packets))


def find_unreliable(record: DecodingRecord) -> set[int]:
    """Return the indices of packets that are damaged, or predicted from damaged ones."""
    packets = record.packets
    sources = {index for index, packet in enumerate(packets) if packet.damaged}
    sources.update(frame.packet for frame in record.frames if frame.corrupt)
    sources.update(_find_undecoded(record))
    sources.update(_find_wild_times(packets))
    keys = sorted(
        frame.packet
        for frame in record.frames
        # A decoder may call a frame that it shows again a key frame.
        if frame.key and packets[frame.packet].key and frame.packet not in sources
    )
    unreliable: set[int] = set()
    for source in sorted(sources):
        if packets[source].disposable and not packets[source].after_hole:
            unreliable.add(source)
        elif source not in unreliable:
            unreliable.update(_find_dependent(packets, keys, source, source + 1))
    for index, _ in _find_holes(record):
        unreliable.update(_find_dependent(packets, keys, index, index))
    return unreliable


def find_missing_times(record: DecodingRecord, unreliable: set[int]) -> list[float]:
    """Return the times in seconds at which frames are missing, in order.

    Args:
        record: What was read.
        unreliable: Indices of the packets that are left out.

    """
    left_out = [record.packets[index] for index in unreliable]
    lost = [time for _, times in _find_holes(record) for time in times]
    return sorted({*_sorted_times(left_out), *lost})


def group_gaps(missing: Sequence[float], kept: Sequence[float], interval: float) -> list[Gap]:
    """Return the gaps that missing frames leave between the kept ones.

    Args:
        missing: Times of missing frames in seconds, ascending.
        kept: Times of the frames that are kept in seconds, ascending.
        interval: Usual interval between frames, in seconds.

    """
    groups: dict[int, list[float]] = {}
    for time in missing:
        groups.setdefault(bisect_left(kept, time), []).append(time)
    return [
        Gap(
            start=kept[place - 1] if place else times[0],
            end=kept[place] if place < len(kept) else times[-1] + interval,
            frames=len(times),
        )
        for place, times in groups.items()
    ]


def _find_undecoded(record: DecodingRecord) -> Iterator[int]:
    """Yield the indices of packets of which the decoder returned no frame, and should have."""
    decoded = {frame.packet for frame in record.frames}
    shown = sorted(frame.time for frame in record.frames if frame.time is not None)
    first_key = find_first_key(record)
    tolerance = _COVERED * (record.usual_interval or 0.0)
    for index, packet in enumerate(record.packets):
        if index in decoded:
            continue
        if packet.time is None:
            if record.errors:
                yield index
            continue
        # A file may begin between two key frames.
        before_start = index < first_key and shown and packet.time < shown[0]
        if not record.errors and (packet.size <= _UNCHANGED or before_start):
            continue
        place = bisect_left(shown, packet.time)
        if all(
            abs(time - packet.time) >= tolerance for time in shown[max(0, place - 1) : place + 1]
        ):
            yield index


def _find_wild_times(packets: Sequence[Packet]) -> Iterator[int]:
    """Yield the indices of packets whose time is far from those before and after it."""
    timed = [
        (index, packet.time) for index, packet in enumerate(packets) if packet.time is not None
    ]
    for (_, before), (index, time), (_, after) in zip(timed, timed[1:], timed[2:], strict=False):
        if min(abs(time - before), abs(time - after)) > _WILD > abs(after - before):
            yield index


def _find_dependent(
    packets: Sequence[Packet], keys: Sequence[int], source: int, first: int
) -> Iterator[int]:
    """Yield the packets from ``source`` to the next key frame, which is at ``first`` or later."""
    place = bisect_left(keys, first)
    key = keys[place] if place < len(keys) else len(packets)
    yield from range(source, key)
    key_time = packets[key].time if key < len(packets) else None
    if key_time is None:
        return
    # Frames that follow the key frame in the file and precede it in time refer to both sides.
    for index in range(key + 1, min(key + 1 + _NEIGHBOURS, len(packets))):
        time = packets[index].time
        if time is not None and time < key_time:
            yield index


def _find_holes(record: DecodingRecord) -> Iterator[tuple[int, list[float]]]:
    """Yield the packets after holes in the file, and the times in seconds that are missing there.

    A hole where no time is missing belongs to another stream.
    """
    interval = record.usual_interval
    if not interval:
        return
    jumps = [
        (before, after)
        for before, after in pairwise(_sorted_times(record.packets))
        if after - before > _JUMP * interval
    ]
    for index, packet in enumerate(record.packets):
        if not packet.after_hole:
            continue
        near = _sorted_times(record.packets[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS])
        missing = [
            before + step * interval
            for before, after in jumps
            if near and near[0] <= before and after <= near[-1]
            for step in range(1, min(round((after - before) / interval), MAX_MISSING))
        ]
        if missing:
            yield index, missing


def _sorted_times(packets: Sequence[Packet]) -> list[float]:
    return sorted({packet.time for packet in packets if packet.time is not None})
