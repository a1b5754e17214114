"""Whether a video file was read to the end that it announces."""

from __future__ import annotations

import re
from pathlib import Path

import av.container
import av.video

from vditrack.errors import InputError
from vditrack.io.decoding.file_length import missing_bytes
from vditrack.io.decoding.reliability import DecodingRecord

_COMPLETE = 0.9
"""Share of the announced frames or seconds below which a file is not complete."""
_DURATION = re.compile(r"(\d+):(\d+):(\d+(?:\.\d*)?)")
"""The tag DURATION of a stream in Matroska."""


def check_completeness(
    path: Path,
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    record: DecodingRecord,
) -> str | None:
    """Check that a file that was read to its end was not cut short.

    The length of the file decides where its container announces one. Frames and seconds announced
    alone do not: they also count dropped frames, or the time of another stream.

    Args:
        path: The file.
        container: The open file.
        stream: The stream that was read.
        record: What was read.

    Returns:
        A remark if the file lacks a small part, or less was read than it announces.

    Raises:
        InputError: The file was cut short.

    """
    lacking, size = missing_bytes(path), path.stat().st_size
    share = size / (size + lacking) if lacking else _share_read(container, stream, record)
    ends = f"it ends at {_last_time(record) - _first_time(record):.2f} s"
    if share is not None and share < _COMPLETE and lacking != 0:
        raise InputError(
            f"{path} is cut short or damaged: {ends}, after {100 * share:.0f}% of what it "
            "announces. Copy it again, or give an end (--end, or end in a manifest) to use what is "
            "there."
        )
    if lacking:
        return (
            f"{path} is cut short or damaged: at least {lacking} bytes of its end are missing; "
            f"{ends}."
        )
    if share is not None and share < _COMPLETE:
        return f"{path} has {100 * share:.0f}% of the frames or seconds that it announces; {ends}."
    return None


def announced_end(
    container: av.container.InputContainer, stream: av.video.VideoStream
) -> float | None:
    """Return the time in seconds at which a file says that a stream ends; None if it does not."""
    if stream.duration is not None and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    tag = _DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    if tag is not None:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    # The duration of a file is that of its longest stream.
    if container.duration is None or len(container.streams) > 1:
        return None
    return (container.duration + (container.start_time or 0)) / 1e6


def _share_read(
    container: av.container.InputContainer, stream: av.video.VideoStream, record: DecodingRecord
) -> float | None:
    """Return the share that was read of what a file announces; None if it announces nothing."""
    shares = []
    if stream.frames:
        shares.append(len(record.packets) / stream.frames)
    end, first = announced_end(container, stream), _first_time(record)
    if end is not None and end > first:
        shares.append((_last_time(record) - first) / (end - first))
    return max(shares, default=None)


def _first_time(record: DecodingRecord) -> float:
    return min((packet.time for packet in record.packets if packet.time is not None), default=0.0)


def _last_time(record: DecodingRecord) -> float:
    """Return the time at which the last packet ends, in seconds."""
    ends = (packet.time + packet.duration for packet in record.packets if packet.time is not None)
    return max(ends, default=0.0)
