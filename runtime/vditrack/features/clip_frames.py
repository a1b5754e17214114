"""The frames of a clip, one after the other, wherever they come from."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from vditrack.arrays import Doubles, Frame, ImageSequence


class TimedFrame(NamedTuple):
    """A frame and its time."""

    frame: Frame
    """uint8 [H, W, 3] RGB."""
    time: float
    """Seconds since the first frame of the video."""


class ClipFrames(Protocol):
    """T frames of one size that can be read any number of times, from any frame on."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...

    @property
    def times(self) -> Doubles:
        """Times of the frames, float64 [T] seconds, ascending."""
        ...

    def __len__(self) -> int:
        """Return the number of frames, T."""
        ...

    def read(self, first_frame: int = 0) -> Iterator[TimedFrame]:
        """Yield the frames from the given one to the last."""
        ...


class ArrayFrames:
    """The frames of a clip that is in memory, or whose frames are read by their numbers."""

    def __init__(self, frames: ImageSequence, times: Doubles) -> None:
        """Take uint8 [T, H, W, 3] RGB, and the times float64 [T] in seconds."""
        self._frames, self.times = frames, times

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self._frames.shape[1:3]
        return height, width

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def read(self, first_frame: int = 0) -> Iterator[TimedFrame]:
        """Yield the frames from the given one to the last."""
        for t in range(first_frame, len(self._frames)):
            yield TimedFrame(self._frames[t], float(self.times[t]))


class ClipPart:
    """Successive frames of a clip, as a clip of their own."""

    def __init__(self, clip: ClipFrames, first: int, end: int) -> None:
        """Take the frames from number ``first`` to ``end``, exclusive."""
        self._clip, self._first, self._end = clip, first, end

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._clip.size

    @property
    def times(self) -> Doubles:
        """Times of the frames, float64 [T] seconds, ascending."""
        return self._clip.times[self._first : self._end]

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._end - self._first

    def read(self, first_frame: int = 0) -> Iterator[TimedFrame]:
        """Yield the frames from the given one to the last."""
        return islice(self._clip.read(self._first + first_frame), len(self) - first_frame)
