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


def stream_use(takes: Encoder, size: Input) -> Use:
    """Return the runs of a stream for each latent, or for each chunk of latents with cached keys.

    The networks run once, when the last frame of the latent or chunk has come. An encoder with
    caches, or of single frames, encodes the newest frames alone, run by run; any other encodes the
    whole window again.

    Args:
        takes: Frames and caches of one run of the encoder.
        size: The bundle's input.

    """
    latents = 1 if size.attention == "window" else size.described_latents
    new = latents * size.temporal_stride
    windowed = takes.frames > 1 and not takes.caches
    encodings = 1 if windowed else max(1, new // takes.frames)
    return Use(new, starts=0, encodings=encodings, windows=1)


def clip_use(takes: Encoder, size: Input) -> Use:
    """Return the runs for each window of a clip, which may look ahead.

    If a window describes all its frames, windows overlap. An encoder with caches, or of a whole
    window, encodes each from its own beginning; one of single frames encodes each frame once.
    Otherwise windows advance by the frames that they describe, and the encoder runs through the
    clip, except where it takes whole windows. With cached keys a clip runs as a stream does.

    Args:
        takes: Frames and caches of one run of the encoder.
        size: The bundle's input.

    """
    if size.attention != "window":
        return stream_use(takes, size)
    whole, windowed = size.described_frames == size.frames, takes.frames > 1 and not takes.caches
    new = max(1, size.frames - size.overlap) if whole else size.described_frames
    if windowed:
        return Use(new, starts=0, encodings=1, windows=1)
    if whole and takes.caches:
        starts = int(takes.frames > 1)
        return Use(new, starts, (size.frames - starts) // takes.frames, windows=1)
    return Use(new, starts=0, encodings=max(1, new // takes.frames), windows=1)
