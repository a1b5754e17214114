"""What ``track`` and ``demo`` are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from vditrack.arrays import Doubles, Floats, Mask
from vditrack.features.clip_frames import ClipFrames, ClipPart
from vditrack.points.clip_tracking import TrackMode


@dataclass(frozen=True)
class Points:
    """The points to track: queries, or a grid on the first frame."""

    queries: Floats | None = None
    """float32 [N, 3] (t, x, y): frame number and pixels."""
    grid: tuple[int, int] | None = None
    """Columns and rows."""
    cuts: tuple[int, ...] = ()
    """Frames at which a new shot begins. Each shot is a clip with its own points."""
    masks: Mapping[int, Mask] | None = None
    """Masks [H, W] of marked objects by frame; only for a clip without cuts."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Names of marked objects by index."""
    remarks: tuple[str, ...] = ()
    """What was done to read the masks."""
    files: tuple[Path, ...] = ()
    """Files that queries and masks were read from."""

    def split(self, clip: ClipFrames) -> list[ClipFrames]:
        """Return the shots of a clip."""
        if not self.cuts:
            return [clip]
        ends = [0, *self.cuts, len(clip)]
        return [ClipPart(clip, first, end) for first, end in pairwise(ends)]

    def queries_on(self, size: tuple[int, int]) -> Floats:
        """Return the queries float32 [N, 3] for a shot of frames of (height, width)."""
        if self.grid is None:
            return np.zeros((0, 3), np.float32) if self.queries is None else self.queries
        columns, rows = self.grid
        height, width = size
        x, y = np.meshgrid(_split_evenly(columns, width), _split_evenly(rows, height))
        return np.stack([np.zeros(x.size), x.ravel(), y.ravel()], axis=1).astype(np.float32)


@dataclass(frozen=True)
class TrackRequest:
    """One run of ``track`` or ``demo``."""

    video: Path
    """Video file, folder of images, rosbag2 or LeRobot data set."""
    points: Points
    output: Path
    """Folder of the results."""
    bundle: Path | None = None
    start: float = 0.0
    """Seconds."""
    end: float | None = None
    """Seconds; None for the end of the video."""
    topic: str | None = None
    """Image topic of a bag, or camera of a data set."""
    backend: str = "auto"
    """As `Tracker.load` takes it."""
    mode: TrackMode = "offline"
    rerun: Path | None = None
    """Recording to write as well."""
    require_signature: Path | None = None
    """Public key that the bundle has to be signed with."""
    verify_files: bool = False
    """Whether to compute the digests of files that did not change."""
    allow_host_code: bool = False
    """Whether engines may bring code for the CPU."""
    resume: bool = False
    """Whether to continue an interrupted run."""
    episode: int | None = None
    """Episode of a LeRobot data set."""


def _split_evenly(count: int, length: int) -> Doubles:
    """Return the middles of ``count`` equal parts of ``length`` pixels."""
    return (np.arange(count) + 0.5) * length / count
