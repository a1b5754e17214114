"""Which frames and points of a clip are compared, and which windows describe these frames."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.bundle.manifest import Input

GAPS = (1, 4, 8, 16)
"""Frames from where a point is taken to where it is sought."""
_SOURCE_STEP = 8
"""Frames from one in which points are taken to the next."""
_POINTS = 64
"""Taken in one frame at most."""


@dataclass(frozen=True)
class Source:
    """A frame in which points are taken."""

    frame: int
    tracks: NDArray[np.intp]
    """[N] those visible in it, no more than 64 of them, evenly chosen."""


@dataclass(frozen=True)
class Window:
    """Frames that go through the model at once."""

    frames: NDArray[np.intp]
    """[F] a clip's first and last frame stand in for those before and after it."""
    described: tuple[int, ...]
    """Frame at which each described latent of the window stands, rising; some beyond the clip."""


def sources(visible: NDArray[np.bool_], frames: Collection[int]) -> tuple[Source, ...]:
    """Return where points are taken: in every eighth frame, if it is one of the ``frames``.

    Args:
        visible: [N, T].
        frames: that have descriptors.

    """
    found = []
    for frame in range(0, visible.shape[1], _SOURCE_STEP):
        tracks = np.flatnonzero(visible[:, frame])
        if frame in frames and len(tracks):
            chosen = np.linspace(0, len(tracks) - 1, min(_POINTS, len(tracks))).round()
            found.append(Source(frame, tracks[chosen.astype(np.intp)]))
    return tuple(found)


def windows(length: int, size: Input) -> tuple[Window, ...]:
    """Windows over a clip's frames, as a bundle has them.

    Those that describe all their frames overlap as the bundle's do; others follow each other by as
    many frames as they describe, and the first frame stands in for those before it. What a clip has
    beyond the last whole window is left out; a clip shorter than one is filled up with its last
    frame.
    """
    stride, described = size.temporal_stride, size.described_latents
    whole = described == size.latents
    first = size.frames - 1 if whole else (described - 1) * stride
    step = max(1, (size.latents - size.overlap) * stride) if whole else described * stride
    found = []
    for end in range(first, max(length, first + 1), step):
        frames = np.clip(np.arange(end - size.frames + 1, end + 1), 0, length - 1)
        stands = tuple(end - stride * before for before in reversed(range(described)))
        found.append(Window(frames, stands))
    return tuple(found)


def needed_windows(length: int, size: Input) -> tuple[Window, ...]:
    """Of these windows, those that are the first to describe a frame that is compared."""
    waiting = {source + gap for source in range(0, length, _SOURCE_STEP) for gap in (0, *GAPS)}
    found = []
    for window in windows(length, size):
        if waiting & {frame for frame in window.described if frame < length}:
            found.append(window)
        waiting -= set(window.described)
    return tuple(found)
