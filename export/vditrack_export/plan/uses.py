"""How often the runtime runs each graph of a bundle (`vditrack.features.windows`)."""

from __future__ import annotations

from dataclasses import dataclass

from vditrack.bundle.manifest import Encoder, Input


@dataclass(frozen=True)
class Use:
    """Runs of the graphs for some new frames."""

    new_frames: int
    starts: int
    """Runs of the encoder of a first frame."""
    encodings: int
    """Runs of the encoder."""
    windows: int
    """Runs of the transformer."""


STREAM = Use(new_frames=1, starts=0, encodings=1, windows=1)
"""Runs for each frame of a stream after the first.

Every frame has a map of its own, also where latents share frames: both networks run for every
frame, with the newest frame repeated for those that its group still lacks. An encoder with caches,
or of single frames, encodes the newest group alone; any other encodes the whole window again.
"""


def clip_use(takes: Encoder, size: Input) -> Use:
    """Return the runs for each window of a clip, which may look ahead.

    If a window describes all its frames, windows overlap. An encoder with caches, or of a whole
    window, encodes each from its own beginning; one of single frames encodes each frame once.
    Otherwise windows advance by the frames that they describe, and the encoder runs through the
    clip, except where it takes whole windows.

    Args:
        takes: Frames and caches of one run of the encoder.
        size: The bundle's input.

    """
    whole, windowed = size.described_frames == size.frames, takes.frames > 1 and not takes.caches
    new = max(1, size.frames - size.overlap) if whole else size.described_frames
    if windowed:
        return Use(new, starts=0, encodings=1, windows=1)
    if whole and takes.caches:
        starts = int(takes.frames > 1)
        return Use(new, starts, (size.frames - starts) // takes.frames, windows=1)
    return Use(new, starts=0, encodings=max(1, new // takes.frames), windows=1)
