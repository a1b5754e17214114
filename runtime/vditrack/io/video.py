"""Reads and writes video files with PyAV (FFmpeg)."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import av.video
import numpy as np

from vditrack.arrays import Doubles, Frame
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.input_checks import check_time_range
from vditrack.io.clip import DecodeProgress, GrowingClip, Video

_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_LARGEST_SIDES = {"libx264": 16384, "mpeg4": 8191}
"""Largest width and height that an encoder takes, in pixels, where it is known."""
_TIME_BASE = Fraction(1, 90_000)
_COMPLETE = 0.9
"""Share of the announced frames or seconds below which a file counts as cut short."""


def read_video(
    path: Path, start: float = 0.0, end: float | None = None, progress: DecodeProgress | None = None
) -> Video:
    """Decode a video file, or a part of it.

    Frames are rotated upright by the file's metadata; alpha is dropped, grey becomes RGB. Times are
    those of the file, also where the frame rate varies.

    Args:
        path: Any file that FFmpeg reads.
        start: Start of the part, in seconds after the first frame.
        end: End of the part (exclusive), in seconds after the first frame; None for the end of the
            file.
        progress: Called after each frame.

    Raises:
        InputError: The file does not exist, holds no video, is damaged or cut short, has no frame
            between ``start`` and ``end``, or its frames do not fit into memory.

    """
    check_time_range(start, end)
    with _open(path) as container:
        stream = _video_stream(path, container)
        expected = _expected_frames(stream, start, end)
        clip = GrowingClip(path, expected or 0)
        for frame, time in _decode(path, container, stream, start, end):
            clip.append(frame, time)
            if progress is not None:
                progress(len(clip.times), expected)
    if not clip.times:
        raise InputError(f"{path} has no video frame between {start:g} s and {end or 'its end'}.")
    return Video(clip.frames[: len(clip.times)], np.array(clip.times))


def write_video(path: Path, frames: Iterable[Frame], times: Doubles) -> None:
    """Write a video as MP4.

    Odd sizes are padded by a row or column.

    Args:
        path: Destination, replaced when all frames are written.
        frames: Frames uint8 [H, W, 3] RGB of one size.
        times: float64 [T] time of each frame, in seconds.

    Raises:
        InputError: The file cannot be written, or the frames are too large for the encoder.

    """
    with staged_file(path) as scratch:
        try:
            with av.open(str(scratch), "w", format="mp4") as container:
                _encode(container, frames, times)
        except av.error.FFmpegError as error:
            raise InputError(f"{path} cannot be written: {_describe(error)}.") from error


def _encode(
    container: av.container.OutputContainer, frames: Iterable[Frame], times: Doubles
) -> None:
    stream: av.video.VideoStream | None = None
    last = -1
    for frame, time in zip(frames, times, strict=True):
        padded = _pad_to_even(frame)
        if stream is None:
            stream = _new_stream(container, padded)
        image = av.VideoFrame.from_ndarray(padded, format="rgb24")
        last = max(last + 1, round((time - times[0]) / _TIME_BASE))
        image.pts, image.time_base = last, _TIME_BASE
        container.mux(stream.encode(image))
    if stream is not None:
        container.mux(stream.encode(None))


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path} is no video that FFmpeg can read: {_describe(error)}.") from error


def _video_stream(path: Path, container: av.container.InputContainer) -> av.video.VideoStream:
    if not container.streams.video:
        raise InputError(f"{path} holds no video stream. Give a file with one.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _decode(
    path: Path,
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    start: float,
    end: float | None,
) -> Iterator[tuple[Frame, float]]:
    """Yield upright RGB frames and their times in seconds, from ``start`` until ``end``."""
    first: float | None = None
    time = -1.0
    interval = 1 / float(stream.average_rate or 30)
    read = _ReadAmount()
    try:
        for packet in container.demux(stream):
            read.count(packet)
            for image in packet.decode():
                first = (image.time or 0.0) if first is None else first
                stamp = None if image.time is None else image.time - first
                time = stamp if stamp is not None and stamp > time else max(0.0, time + interval)
                if end is not None and time >= end:
                    return
                if time >= start:
                    rgb = np.asarray(image.to_ndarray(format="rgb24"), np.uint8)
                    yield _rotate(rgb, image.rotation), time
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path} is damaged after {max(time, 0):.2f} s: {_describe(error)}. "
            "Copy it again, or give --end before the damage."
        ) from error
    if end is None and read.share(container, stream) < _COMPLETE:
        raise InputError(
            f"{path} is cut short: it ends at {max(time, 0):.2f} s, after "
            f"{100 * read.share(container, stream):.0f}% of what its header announces. "
            "Copy it again, or give --end to use what is there."
        )


class _ReadAmount:
    """How much of a file was read: packets, and seconds including the last frame's duration."""

    def __init__(self) -> None:
        self.packets, self.until = 0, 0.0

    def count(self, packet: "av.Packet[av.video.VideoStream]") -> None:
        if packet.pts is None or packet.time_base is None:
            return
        self.packets += 1
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        self.until = max(self.until, end)

    def share(self, container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
        """Return the share that was read of what the header announces; 1 without a header."""
        # Frames before seconds: the last frame of a slide show may last longer than all others.
        if stream.frames:
            return self.packets / stream.frames
        if container.duration is None or container.streams.audio:
            return 1.0
        return (self.until - (container.start_time or 0) / 1e6) / (container.duration / 1e6)


def _rotate(frame: Frame, rotation: int) -> Frame:
    """Rotate a frame counterclockwise by ``rotation`` degrees, rounded to a quarter turn."""
    return np.ascontiguousarray(np.rot90(frame, k=round(rotation / 90) % 4))


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


def _pad_to_even(frame: Frame) -> Frame:
    """Repeat the last row or column of odd sizes, since chroma has half the resolution."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _new_stream(container: av.container.OutputContainer, frame: Frame) -> av.video.VideoStream:
    encoder = next(name for name in _ENCODERS if name in av.codecs_available)
    height, width = frame.shape[:2]
    largest = _LARGEST_SIDES.get(encoder)
    if largest is not None and max(height, width) > largest:
        raise InputError(
            f"{width} x {height} pixels are too large for the encoder {encoder}, which takes "
            f"{largest} a side."
        )
    stream = cast(av.video.VideoStream, container.add_stream(encoder, rate=30))
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = _TIME_BASE
    if encoder == "libx264":
        stream.options = {"crf": "20", "preset": "veryfast"}
    return stream


def _describe(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
