"""The frames and points of a clip that are compared, and the windows that encode these frames."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Indices
from vditrack.bundle.manifest import Input

GAPS = (1, 4, 8, 16)
"""The numbers of frames between taking a point and searching it."""
_SOURCE_STEP = 8
"""Points are taken in every eighth frame."""
_POINTS = 64
"""The largest number of points taken in one frame."""


@dataclass(frozen=True)
class Source:
    """A frame in which points are taken."""

    frame: int
    tracks: Indices
    """The indices of the tracks, [N]: at most 64 of those visible in the frame, evenly chosen."""


def choose_sources(visible: Bools, frames: Collection[int]) -> tuple[Source, ...]:
    """Return the points to take: in every eighth frame, if it has descriptors.

    Args:
        visible: the true visibility, [N, T].
        frames: the frames that have descriptors.

    """
    found = []
    for frame in range(0, visible.shape[1], _SOURCE_STEP):
        tracks = np.flatnonzero(visible[:, frame])
        if frame in frames and len(tracks):
            chosen = np.linspace(0, len(tracks) - 1, min(_POINTS, len(tracks))).round()
            found.append(Source(frame, tracks[chosen.astype(np.intp)]))
    return tuple(found)


@dataclass(frozen=True)
class Window:
    """Frames that pass through the model together."""

    frames: Indices
    """The frames, [F]; a clip's first and last frame stand in for those before and after it."""
    described: tuple[int, ...]
    """The frame of each latent of the window that gets descriptors, rising; it may lie beyond the
    clip."""


def list_windows(length: int, size: Input) -> tuple[Window, ...]:
    """Return the windows over a clip's frames, as a bundle has them.

    Windows that describe all their frames overlap as the bundle's do. Others follow each other at
    as many frames as they describe, and the first frame stands in for those before it. The frames
    after the last whole window are left out; a clip shorter than a window is filled with its last
    frame.

    Args:
        length: the number of the clip's frames.
        size: the card's window.

    """
    stride, described = size.temporal_stride, size.described_latents
    whole = described == size.latents
    first = size.frames - 1 if whole else (described - 1) * stride
    step = max(1, (size.latents - size.overlap) * stride) if whole else described * stride
    found = []
    for end in range(first, max(length, first + 1), step):
        frames = np.clip(np.arange(end - size.frames + 1, end + 1), 0, length - 1)
        latent_frames = tuple(end - stride * before for before in reversed(range(described)))
        found.append(Window(frames, latent_frames))
    return tuple(found)


def list_needed_windows(length: int, size: Input) -> tuple[Window, ...]:
    """Return the windows that are the first to describe a frame that is compared."""
    waiting = {source + gap for source in range(0, length, _SOURCE_STEP) for gap in (0, *GAPS)}
    found = []
    for window in list_windows(length, size):
        if waiting & {frame for frame in window.described if frame < length}:
            found.append(window)
        waiting -= set(window.described)
    return tuple(found)
