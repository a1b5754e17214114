"""Decoded clips: frames, their times, and what is missing between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vditrack.arrays import Doubles, Frame
from vditrack.errors import InputError
from vditrack.inference.host_memory import available_bytes

DecodeProgress = Callable[[int, int | None], None]
"""Called with (frames decoded, frames expected); the second is None where it is not known."""

_MEMORY_SHARE = 0.6
"""Share of the free memory that a decoded clip may take."""


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

    def append(self, frame: Frame, time: float) -> None:
        """Add a frame uint8 [H, W, 3].

        Raises:
            InputError: The frame has another size than those before, or the memory is too small.

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
