"""Decoded clips: frames, their times, and what is missing between them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar
from zlib import crc32

import numpy as np

from vditrack.arrays import Doubles, Frame, Image
from vditrack.errors import InputError
from vditrack.inference.host_memory import available_bytes

DecodeProgress = Callable[[int, int | None], None]
"""Called with (frames decoded, frames expected); the second is None where it is not known."""

_MEMORY_SHARE = 0.6
"""Share of the free memory that a decoded clip may take."""
_CHECKED_ROWS = 8
"""One of so many rows of a frame is part of its checksum; blocks of codecs have more rows."""


class Gap(NamedTuple):
    """A stretch of a clip without frames, because the file is damaged or lacks them."""

    start: float
    """Time of the last frame before the gap, in seconds; of the first missing frame where there is
    no frame before."""
    end: float
    """Time of the first frame after the gap, in seconds; of the end of the last missing frame where
    there is no frame after."""
    frames: int
    """Number of missing frames."""


@dataclass(frozen=True)
class Video:
    """A decoded clip."""

    frames: Frame
    """uint8 [T, H, W, 3] RGB, upright."""
    times: Doubles
    """float64 [T] seconds since the first frame of the file, ascending."""
    gaps: tuple[Gap, ...] = field(default=(), kw_only=True)
    """Where frames are missing, in order."""
    remarks: tuple[str, ...] = field(default=(), kw_only=True)
    """Notes for the user: what the input lacks, and what was done about it."""


def describe_gaps(gaps: Sequence[Gap], reason: str) -> list[str]:
    """Return a remark about the gaps of a clip, or none without gaps.

    Args:
        gaps: Of a clip, in order.
        reason: Why the frames are missing, as a sentence.

    """
    if not gaps:
        return []
    count, first = sum(gap.frames for gap in gaps), gaps[0]
    are = "frames are" if count != 1 else "frame is"
    where = f"between {first.start:.3f} s and {first.end:.3f} s"
    places = "" if len(gaps) == 1 else f"in {len(gaps)} places, the first "
    return [f"{count} {are} missing {places}{where}: {reason}"]


class Picture(Protocol):
    """A decoded frame that is not converted to RGB yet."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, upright."""
        ...

    def read(self) -> Frame:
        """Return the frame, uint8 [H, W, 3] RGB, upright."""
        ...

    def checksum(self) -> int:
        """Return a checksum of some of its rows, 32 bits: equal frames have equal ones."""
        ...


@dataclass(frozen=True)
class ArrayPicture:
    """A frame that was decoded to RGB."""

    frame: Frame
    """uint8 [H, W, 3] RGB, upright."""

    @property
    def size(self) -> tuple[int, int]:
        """See `Picture`."""
        height, width = self.frame.shape[:2]
        return height, width

    def read(self) -> Frame:
        """See `Picture`."""
        return self.frame

    def checksum(self) -> int:
        """See `Picture`."""
        return checksum_rows(self.frame.reshape(len(self.frame), -1))


def checksum_rows(rows: Image) -> int:
    """Return the CRC-32 of every eighth row of bytes [H, n]."""
    return crc32(rows[::_CHECKED_ROWS].tobytes())


@dataclass(frozen=True)
class Selection:
    """Which of the frames that were decoded make up the clip."""

    times: Doubles
    """float64 [T] seconds since the first frame of the file, ascending."""
    positions: Sequence[int]
    """[T] positions among the decoded frames of the part, ascending."""
    gaps: tuple[Gap, ...]
    """Where frames are missing, in order."""
    remarks: tuple[str, ...]
    """Notes for the user."""


class FrameSink(Protocol):
    """Takes the decoded frames of a part of a file, in order."""

    times: list[float]
    """Times of the frames taken so far, in seconds."""

    def append(self, picture: Picture, time: float) -> None:
        """Take the next frame.

        Raises:
            InputError: It has another size than those before, or the memory is too small.

        """
        ...


Sink = TypeVar("Sink", bound=FrameSink)
MakeSink = Callable[[Path, int], Sink]
"""Returns an empty sink for a file, by its path and its expected number of frames, or 0."""


class Decoding(Protocol):
    """One pass through a part of a file."""

    @property
    def expected(self) -> int | None:
        """Expected number of frames; None where it is not known."""
        ...

    def pictures(self) -> Iterator[tuple[Picture, float]]:
        """Yield the decoded frames of the part and their times, in order."""
        ...

    def select(self) -> Selection:
        """Return which of the frames make up the clip, after all were decoded."""
        ...


class ClipReader(Protocol):
    """Decodes a part of a file or folder, any number of times."""

    @property
    def path(self) -> Path:
        """The file or folder."""
        ...

    def decode(
        self, make_sink: MakeSink[Sink], progress: DecodeProgress | None
    ) -> tuple[Sink, Selection]:
        """Decode all frames into a sink, and return which of them make up the clip.

        Raises:
            InputError: The file cannot be read, is cut short, or has no frame in the part.

        """
        ...

    def pictures(self, selection: Selection, first: int) -> Iterator[Picture]:
        """Yield the selected frames from number ``first`` on, after `decode`."""
        ...


def run(decoding: Decoding, sink: FrameSink, progress: DecodeProgress | None) -> None:
    """Decode all frames of the part into a sink."""
    for picture, time in decoding.pictures():
        sink.append(picture, time)
        if progress is not None:
            progress(len(sink.times), decoding.expected)


class GrowingClip:
    """A clip of unknown length in one array; a list and its copy would need twice the memory."""

    def __init__(self, path: Path, expected: int) -> None:
        """Make an empty clip.

        Args:
            path: path of the file, for error messages.
            expected: expected number of frames, or 0; there may be more.

        """
        self.frames: Frame = np.zeros((0, 0, 0, 3), np.uint8)
        """uint8 [at least T, H, W, 3]; the first T hold frames."""
        self.times: list[float] = []
        """Times of the T frames, in seconds."""
        self._path, self._expected = path, expected
        self._budget = _MEMORY_SHARE * available_bytes()

    def append(self, picture: Picture, time: float) -> None:
        """Add a frame; see `FrameSink`."""
        frame = picture.read()
        count = len(self.times)
        if count == 0:
            expected = max(self._expected, 1)
            self._check_memory(frame, expected)
            self.frames = np.empty((expected, *frame.shape), np.uint8)
        height, width = self.frames.shape[1:3]
        check_size(self._path, count, picture, (height, width))
        if count == len(self.frames):
            more = count + max(16, count // 4)
            self._check_memory(frame, more)
            self.frames.resize((more, *frame.shape), refcheck=False)
        self.frames[count] = frame
        self.times.append(time)

    def select(self, positions: Sequence[int]) -> Frame:
        """Return the selected frames, uint8 [T, H, W, 3]; the others are overwritten."""
        for place, position in enumerate(positions):
            if place != position:
                self.frames[place] = self.frames[position]
        return self.frames[: len(positions)]

    def _check_memory(self, frame: Frame, count: int) -> None:
        needed = count * frame.nbytes
        if needed > self._budget:
            height, width = frame.shape[:2]
            raise InputError(
                f"{self._path} does not fit into memory: {count} frames of {width} x {height} take "
                f"{needed / 2**30:.1f} GiB, {self._budget / 2**30:.1f} GiB may be used. "
                "Give --start and --end (seconds) to take a part."
            )


def check_size(path: Path, number: int, picture: Picture, size: tuple[int, int]) -> None:
    """Check that a frame has the (height, width) of those before it.

    Raises:
        InputError: It has another size.

    """
    if picture.size != size:
        raise InputError(
            f"{path} changes size at frame {number}, from {size[::-1]} to {picture.size[::-1]}. "
            "Give --end before it."
        )


def collect(reader: ClipReader, progress: DecodeProgress | None) -> Video:
    """Decode a clip into memory.

    Raises:
        InputError: The file cannot be read, is cut short, has no frame in the part, or its frames
            do not fit into memory.

    """
    clip, selection = reader.decode(GrowingClip, progress)
    frames = clip.select(selection.positions)
    return Video(frames, selection.times, gaps=selection.gaps, remarks=selection.remarks)
