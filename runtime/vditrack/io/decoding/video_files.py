"""Decodes a video file with FFmpeg, and leaves out what is damaged."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import Literal, NamedTuple, cast

import av
import av.container
import av.video
import numpy as np
from av.codec.context import Flags
from av.video.frame import VideoFrame

from vditrack.errors import InputError
from vditrack.io.clip import (
    DecodeProgress,
    MakeSink,
    Picture,
    Selection,
    Sink,
    describe_gaps,
    run,
)
from vditrack.io.decoding.completeness import announced_end, check_completeness
from vditrack.io.decoding.orientation import OrientationReader
from vditrack.io.decoding.packets import PacketReader
from vditrack.io.decoding.reliability import (
    MAX_MISSING,
    DecodedFrame,
    DecodingRecord,
    Packet,
    find_first_key,
    find_missing_times,
    find_unreliable,
    group_gaps,
)
from vditrack.io.decoding.seeking import SeekIndex, make_seek_index
from vditrack.io.decoding.stored_pictures import StoredPicture
from vditrack.io.decoding.streams import choose_stream, describe_error, open_container

Threads = Literal["AUTO", "SLICE"]
"""How FFmpeg decodes in threads: as it chooses, or one frame at a time."""

_DEFAULT_RATE = 30.0
"""Frames per second of a file that has neither times nor a rate."""
_TAIL = 4096
"""Bytes after the last packet of a Matroska file, beyond those of its index and tags."""
_CHECKED = {"mjpeg": {"err_detect": "explode"}}
"""Options of decoders that otherwise return incomplete pictures without a sign."""

_REMEMBERED = 4096
"""Packets that are remembered while frames are read again; decoders reorder far fewer."""
_FORGOTTEN = Packet(time=None, duration=0.0, size=0, key=False)
_PARTIAL = frozenset({"apng", "gif"})
"""Decoders that return a part of the last frame of a file that was cut short."""


class _Part(NamedTuple):
    """A part of a file; see `VideoFileReader`."""

    start: float
    end: float | None
    seeks: bool


class VideoFileReader:
    """Decodes a video file, or a part of it; see `vditrack.io.video.read_video`."""

    def __init__(self, path: Path, start: float, end: float | None, *, seeks: bool = False) -> None:
        """Take a part of a file.

        Args:
            path: The file.
            start: Start of the part, in seconds after the first frame.
            end: End of the part (exclusive), in seconds after the first frame; None for the end of
                the file.
            seeks: Whether decoding starts at the last key frame before the part. Then ``start``,
                ``end`` and the times of the frames are those that are stored in the file.

        """
        self.path, self._part = path, _Part(start, end, seeks)
        self._threads: Threads = "AUTO"
        self._index: SeekIndex | None = None

    def decode(
        self, make_sink: MakeSink[Sink], progress: DecodeProgress | None
    ) -> tuple[Sink, Selection]:
        """See `ClipReader`."""
        with open_container(self.path) as container:
            decoding = _Decoding(self.path, container, "AUTO", self._part)
            sink = make_sink(self.path, decoding.expected or 0)
            run(decoding, sink, progress)
            if not decoding.is_damaged:
                self._index = decoding.index_frames()
                return sink, decoding.select()
        del decoding, sink  # Its frames.
        # Threads that decode several frames at once report damage late, lose frames with it, and do
        # not give the same frames in every run.
        self._threads = "SLICE"
        with open_container(self.path) as container:
            decoding = _Decoding(self.path, container, "SLICE", self._part)
            sink = make_sink(self.path, decoding.expected or 0)
            run(decoding, sink, progress)
            return sink, decoding.select()

    def pictures(self, selection: Selection, first: int) -> Iterator[Picture]:
        """See `ClipReader`; seek to the last key frame before if the file allows it."""
        if first and self._index is not None:
            yield from self._index.pictures(self.path, first)
            return
        yield from self.pictures_from_start(selection, first)

    def pictures_from_start(self, selection: Selection, first: int) -> Iterator[Picture]:
        """Yield the selected frames from number ``first`` on, without seeking."""
        wanted = iter(selection.positions[first:])
        following = next(wanted, None)
        with open_container(self.path) as container:
            decoding = _Decoding(self.path, container, self._threads, self._part)
            for position, (picture, _) in enumerate(decoding.pictures()):
                decoding.forget()
                if position == following:
                    yield picture
                    following = next(wanted, None)
                    if following is None:
                        return


class _Decoding:
    """One pass through a part of a stream."""

    def __init__(
        self,
        path: Path,
        container: av.container.InputContainer,
        threads: Threads,
        part: _Part,
    ) -> None:
        stream, remark = choose_stream(path, container)
        self._path, self._container, self._stream = path, container, stream
        self._threads, self._seeks = threads, part.seeks
        self._start, self._end = start, end = part.start, part.end
        self._interval = 1 / float(stream.average_rate or _DEFAULT_RATE)
        self.expected = _expected_frames(stream, start, end)
        """Expected number of frames; None where it is not known."""
        self._times: list[float] = []
        self._stamps: list[tuple[int | None, bool]] = []
        self._record = DecodingRecord()
        # AVI may have the times of decoding only, which are those of presentation in another order.
        self._is_avi = container.format.name == "avi"
        self._origin: float | None = 0.0 if part.seeks else None
        self._last = -self._interval
        self._reader = PacketReader(path, container, stream)
        self._read_all = False
        self._forgotten = 0
        self._orientations = OrientationReader()
        self._index_of_pts: OrderedDict[int, int] = OrderedDict()
        self._unshown: list[float] = []
        self._remarks = [remark] if remark else []
        stream.thread_type = threads
        context = stream.codec_context
        # Each frame then tells its packet.
        context.flags |= int(Flags.copy_opaque)
        context.options = dict(_CHECKED.get(context.name, {}))

    @property
    def is_damaged(self) -> bool:
        """Whether the file has damaged frames in the part."""
        return self._record.errors > 0 or bool(find_unreliable(self._record))

    def pictures(self) -> Iterator[tuple[Picture, float]]:
        """Yield the frames of the part and their times, until its end or that of the file."""
        if self._seeks:
            seek_to(self._container, self._stream, self._start)
        for images in self._decode():
            for image in images:
                picture = self._take(image)
                if picture is not None:
                    yield picture, self._times[-1]

    def index_frames(self) -> SeekIndex | None:
        """Return where the frames of the part can be reached by seeking; None if they cannot."""
        if self._is_avi or self._stream.codec_context.name in _CHECKED:
            return None
        return make_seek_index(self._stamps)

    def forget(self) -> None:
        """Forget what was read long ago, so that memory does not grow; `select` then fails."""
        packets, frames = self._record.packets, self._record.frames
        for place in range(max(0, self._forgotten), len(packets) - _REMEMBERED):
            packets[place] = _FORGOTTEN
        self._forgotten = len(packets) - _REMEMBERED
        if len(frames) > _REMEMBERED:
            frames[-1 - _REMEMBERED] = frames[0]
        while len(self._index_of_pts) > _REMEMBERED:
            self._index_of_pts.popitem(last=False)
        self._stamps.clear()

    def select(self) -> Selection:
        """Return the frames that can be trusted.

        Raises:
            InputError: The file is cut short, or has no such frame.

        """
        record, remarks = self._record, self._remarks
        # What a file announces is more than was read after seeking.
        if self._read_all and not self._seeks:
            remark = check_completeness(self._path, self._container, self._stream, record)
            if remark and self._stream.codec_context.name in _PARTIAL and record.packets:
                record.packets[-1].damaged = True
            remarks += [remark] if remark else []
        unreliable = find_unreliable(record)
        times, positions = self._select(unreliable)
        origin = self._origin or 0.0
        missing = [time - origin for time in find_missing_times(record, unreliable)]
        missing += self._missing_at_end(origin)
        within = [
            time
            for time in missing
            if self._start <= time and (self._end is None or time < self._end)
        ]
        if not times:
            self._refuse(bool(within))
        gaps = group_gaps(within, times, record.usual_interval or self._interval)
        remarks += describe_gaps(gaps, "damaged, or predicted from damaged frames.")
        return Selection(np.array(times), positions, tuple(gaps), tuple(remarks))

    def _decode(self) -> Iterator[list[VideoFrame]]:
        """Yield the frames that each packet completes."""
        for packet, known in self._reader.read():
            if self._is_after_end(packet):
                break
            packet.opaque = len(self._record.packets)
            if packet.pts is not None:
                self._index_of_pts[packet.pts] = packet.opaque
            if known.time is not None and self._is_avi:
                heappush(self._unshown, known.time)
            self._record.packets.append(known)
            yield self._decode_packet(packet)
        else:
            self._read_all = True
        yield self._drain()

    def _decode_packet(self, packet: av.Packet[av.video.VideoStream]) -> list[VideoFrame]:
        try:
            return packet.decode()
        except av.error.FFmpegError:
            self._record.errors += 1
            return []

    def _drain(self) -> list[VideoFrame]:
        """Return the frames that the decoder still has."""
        last = cast("av.Packet[av.video.VideoStream]", av.Packet())
        last.stream = self._stream
        if self._stream.time_base is not None:
            last.time_base = self._stream.time_base
        return self._decode_packet(last)

    def _is_after_end(self, packet: av.Packet[av.video.VideoStream]) -> bool:
        """Return whether a packet, and so all that follow, are after the end of the part."""
        if self._end is None or self._origin is None or packet.dts is None:
            return False
        return float(packet.dts * packet.time_base) - self._origin >= self._end

    def _take(self, image: VideoFrame) -> Picture | None:
        """Record a decoded frame, and return it if it is in the requested part."""
        record, index = self._record, self._find_packet(image)
        stamp = self._read_stamp(image, record.packets[index].shift)
        if self._origin is None:
            self._origin = self._find_origin(index, stamp)
        time = len(record.frames) * self._interval if stamp is None else stamp - self._origin
        # The decoder may return a wrong frame of a damaged file early; its time means nothing.
        if self._threads == "AUTO":
            time = self._last = time if time > self._last else self._last + self._interval
        frame = DecodedFrame(index, stamp, image.key_frame, image.is_corrupt, position=None)
        record.frames.append(frame)
        if not (self._start <= time and (self._end is None or time < self._end)):
            return None
        orientation = self._orientations.read(image, record.packets[index].exif)
        if orientation.remark and not any(orientation.remark in x for x in self._remarks):
            self._remarks.append(f"{self._path}: {orientation.remark}.")
        frame.position = len(self._times)
        self._times.append(time)
        self._stamps.append((image.pts, image.key_frame and record.packets[index].key))
        return StoredPicture(image, orientation)

    def _read_stamp(self, image: VideoFrame, shift: float) -> float | None:
        """Return the time of a decoded frame in seconds of the file, if it has one.

        Args:
            image: The frame.
            shift: Seconds to add to the time that the demuxer gives.

        """
        if self._is_avi and self._threads == "AUTO":
            return heappop(self._unshown) if self._unshown else None
        return None if image.time is None else image.time + shift

    def _find_packet(self, image: VideoFrame) -> int:
        """Return the index of the packet of a decoded frame."""
        # After damage some decoders mix up which packet a frame is of, but not its time.
        if image.pts is not None and image.pts in self._index_of_pts:
            return self._index_of_pts[image.pts]
        if isinstance(image.opaque, int):
            return image.opaque
        return len(self._record.packets) - 1

    def _find_origin(self, index: int, stamp: float | None) -> float:
        """Return the time of the file's first frame in seconds, decoded or refused.

        Args:
            index: Packet of the first frame that was decoded.
            stamp: Its time in seconds, if it has one.

        """
        record = self._record
        first = 0 if record.errors else find_first_key(record)
        refused = record.packets[first:index]
        times = [packet.time for packet in refused if packet.time is not None]
        return min([0.0 if stamp is None else stamp, *times])

    def _select(self, unreliable: set[int]) -> tuple[list[float], list[int]]:
        """Return the times of reliable frames, ascending, and their positions in the clip."""
        positions = [
            frame.position
            for frame in self._record.frames
            if frame.packet not in unreliable and frame.position is not None
        ]
        stamps = [self._times[position] for position in positions]
        if self._is_avi:
            stamps.sort()
        times: list[float] = []
        for stamp in stamps:
            late = bool(times) and stamp <= times[-1]
            times.append(times[-1] + self._interval if late else stamp)
        return times, positions

    def _missing_at_end(self, origin: float) -> list[float]:
        """Return the times that a Matroska file announces after its last readable packet."""
        record = self._record
        interval = record.usual_interval
        end = announced_end(self._container, self._stream)
        last = max((p.time for p in record.packets if p.time is not None), default=None)
        if interval is None or end is None or last is None or not self._read_all:
            return []
        if self._reader.unread_bytes <= _TAIL:
            return []
        count = min(round((end - last) / interval), MAX_MISSING)
        return [last - origin + interval * step for step in range(1, count)]

    def _refuse(self, damaged: bool) -> None:
        end = "its end" if self._end is None else f"{self._end:g} s"
        part = f"between {self._start:g} s and {end}"
        if damaged:
            raise InputError(
                f"{self._path} is damaged: no video frame {part} can be decoded. Copy it again."
            )
        raise InputError(f"{self._path} has no video frame {part}.")


def seek_to(
    container: av.container.InputContainer, stream: av.video.VideoStream, time: float
) -> None:
    """Go to the last key frame at or before a time of the file, in seconds.

    Raises:
        InputError: The file cannot be sought.

    """
    if stream.time_base is None:
        return
    try:
        container.seek(max(0, round(time / stream.time_base)), stream=stream)
    except av.error.FFmpegError as error:
        raise InputError(
            f"{container.name} has no video frame before {time:.3f} s: {describe_error(error)}."
        ) from error


def _expected_frames(stream: av.video.VideoStream, start: float, end: float | None) -> int | None:
    """Return the number of frames from ``start`` to ``end`` by the header; None if unknown."""
    rate = float(stream.average_rate or 0)
    total = stream.frames
    if not total and stream.duration and stream.time_base:
        total = round(float(stream.duration * stream.time_base) * rate)
    if not total:
        return None
    upto = total if end is None or not rate else min(total, end * rate)
    return max(1, round(upto - min(total, start * rate)))
