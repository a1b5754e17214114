"""Video files in and out, through PyAV (FFmpeg)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import av.video
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError

Decoded = Callable[[int, int | None], None]

_MEMORY_SHARE = 0.6
"""Of the memory that is free, what a decoded clip may take."""
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_TIME_BASE = Fraction(1, 90_000)
_COMPLETE = 0.9
"""Share of what the header announces below which a file counts as cut short."""


@dataclass(frozen=True)
class Video:
    """A decoded clip."""

    frames: Frame
    """uint8 [T, H, W, 3] RGB, upright."""
    times: NDArray[np.float64]
    """[T] seconds since the file's first frame, rising."""


def read_video(
    path: Path, start: float = 0.0, end: float | None = None, decoded: Decoded | None = None
) -> Video:
    """Decode a video file, or a stretch of it.

    Frames are turned upright where the file says how; alpha is dropped, grey becomes RGB. Times are
    the file's own, also where the frame rate varies.

    Args:
        path: any file that FFmpeg reads.
        start: seconds after the first frame.
        end: seconds after the first frame, itself left out; the file's end by default.
        decoded: called with (frames decoded, frames expected or None).

    Raises:
        InputError: no such file, no video in it, it is damaged or cut short, the stretch holds no
            frame, or the decoded frames would not fit into memory.

    """
    if start < 0 or (end is not None and end <= start):
        raise InputError(f"from {start:g} s to {end} s is no stretch of a video.")
    with _opened(path) as container:
        stream = _video_stream(path, container)
        expected = _expected_frames(stream, start, end)
        clip = GrowingClip(path, expected or 0)
        for frame, time in _decode(path, container, stream, start, end):
            clip.append(frame, time)
            if decoded is not None:
                decoded(len(clip.times), expected)
    if not clip.times:
        raise InputError(f"{path} has no video frame between {start:g} s and {end or 'its end'}.")
    return Video(clip.frames[: len(clip.times)], np.array(clip.times))


def write_video(path: Path, frames: Iterable[Frame], times: NDArray[np.float64]) -> None:
    """Write frames [H, W, 3] RGB as MP4 at their own times; odd sizes lose nothing.

    Raises:
        InputError: the file cannot be written.

    """
    with staged_file(path) as scratch:
        try:
            with av.open(str(scratch), "w", format="mp4") as container:
                _encode(container, frames, times)
        except av.error.FFmpegError as error:
            raise InputError(f"{path} cannot be written: {_reason(error)}.") from error


class GrowingClip:
    """Frames as they come, in one array: a list and its copy would take the memory twice."""

    def __init__(self, path: Path, expected: int) -> None:
        """Begin without a frame.

        Args:
            path: of the file, for messages.
            expected: frames in all, or 0; there may be more.

        """
        self.frames: Frame = np.zeros((0, 0, 0, 3), np.uint8)
        """uint8 [at least T, H, W, 3]."""
        self.times: list[float] = []
        """Of the T frames."""
        self._path, self._expected = path, expected
        self._budget = _MEMORY_SHARE * _available_bytes()

    def append(self, frame: Frame, time: float) -> None:
        """Add a frame uint8 [H, W, 3].

        Raises:
            InputError: it has another size than those before, or the memory is not enough.

        """
        count = len(self.times)
        if count == 0:
            expected = max(self._expected, 1)
            self._check_memory(frame, expected)
            self.frames = np.empty((expected, *frame.shape), np.uint8)
        if frame.shape != self.frames.shape[1:]:
            raise InputError(
                f"{self._path} changes size at frame {count}, from {self.frames.shape[2:0:-1]} to "
                f"{frame.shape[1::-1]}. Give --end before it."
            )
        if count == len(self.frames):
            more = count + max(16, count // 4)
            self._check_memory(frame, more)
            self.frames.resize((more, *frame.shape), refcheck=False)
        self.frames[count] = frame
        self.times.append(time)

    def _check_memory(self, frame: Frame, count: int) -> None:
        needed = count * frame.nbytes
        if needed > self._budget:
            height, width = frame.shape[:2]
            raise InputError(
                f"{self._path} does not fit into memory: {count} frames of {width} x {height} take "
                f"{needed / 2**30:.1f} GiB, {self._budget / 2**30:.1f} GiB may be used. "
                "Give --start and --end (seconds) to take a part."
            )


def _encode(
    container: av.container.OutputContainer, frames: Iterable[Frame], times: NDArray[np.float64]
) -> None:
    stream: av.video.VideoStream | None = None
    last = -1
    for frame, time in zip(frames, times, strict=True):
        padded = _even(frame)
        if stream is None:
            stream = _new_stream(container, padded)
        picture = av.VideoFrame.from_ndarray(padded, format="rgb24")
        last = max(last + 1, round((time - times[0]) / _TIME_BASE))
        picture.pts, picture.time_base = last, _TIME_BASE
        container.mux(stream.encode(picture))
    if stream is not None:
        container.mux(stream.encode(None))


def _opened(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path} is no video that FFmpeg can read: {_reason(error)}.") from error


def _video_stream(path: Path, container: av.container.InputContainer) -> av.video.VideoStream:
    if not container.streams.video:
        raise InputError(f"{path} holds no video stream.")
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
    """Upright RGB frames and their times, from ``start`` until ``end``."""
    first: float | None = None
    time = -1.0
    interval = 1 / float(stream.average_rate or 30)
    read = _Read()
    try:
        for packet in container.demux(stream):
            read.count(packet)
            for picture in packet.decode():
                first = (picture.time or 0.0) if first is None else first
                told = None if picture.time is None else picture.time - first
                time = told if told is not None and told > time else max(0.0, time + interval)
                if end is not None and time >= end:
                    return
                if time >= start:
                    rgb = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
                    yield _upright(rgb, picture.rotation), time
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path} is damaged after {max(time, 0):.2f} s: {_reason(error)}. "
            "Copy it again, or give --end before the damage."
        ) from error
    if end is None and read.share(container, stream) < _COMPLETE:
        raise InputError(
            f"{path} is cut short: it ends at {max(time, 0):.2f} s, of what its header announces "
            f"{100 * read.share(container, stream):.0f}% is there. "
            "Copy it again, or give --end to use what is there."
        )


class _Read:
    """How much of a file has been read: packets, and seconds with the last frame's stay."""

    def __init__(self) -> None:
        self.packets, self.until = 0, 0.0

    def count(self, packet: "av.Packet[av.video.VideoStream]") -> None:
        if packet.pts is None or packet.time_base is None:
            return
        self.packets += 1
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        self.until = max(self.until, end)

    def share(self, container: av.container.InputContainer, stream: av.video.VideoStream) -> float:
        """Of what the header announces, what was there; 1 where it announces nothing."""
        # The count first: a slide show's last frame may stay longer than all others together.
        if stream.frames:
            return self.packets / stream.frames
        if container.duration is None or container.streams.audio:
            return 1.0
        return (self.until - (container.start_time or 0) / 1e6) / (container.duration / 1e6)


def _upright(frame: Frame, rotation: int) -> Frame:
    """Turn a frame counterclockwise by what the file says, in quarters."""
    return np.ascontiguousarray(np.rot90(frame, k=round(rotation / 90) % 4))


def _expected_frames(stream: av.video.VideoStream, start: float, end: float | None) -> int | None:
    """Frames in the stretch as far as the container tells, or None."""
    rate = float(stream.average_rate or 0)
    total = stream.frames
    if not total and stream.duration and stream.time_base:
        total = round(float(stream.duration * stream.time_base) * rate)
    if not total:
        return None
    upto = total if end is None or not rate else min(total, round(end * rate))
    return max(1, upto - round(start * rate))


def _available_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        # Not Linux: nothing is known, so nothing is refused.
        return float("inf")
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _even(frame: Frame) -> Frame:
    """Repeat the last row or column of odd sizes: chroma is stored at half the resolution."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _new_stream(container: av.container.OutputContainer, frame: Frame) -> av.video.VideoStream:
    encoder = next(name for name in _ENCODERS if name in av.codecs_available)
    stream = cast(av.video.VideoStream, container.add_stream(encoder, rate=30))
    stream.height, stream.width = frame.shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = _TIME_BASE
    if encoder == "libx264":
        stream.options = {"crf": "20", "preset": "veryfast"}
    return stream


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
