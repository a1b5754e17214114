"""How reference tracking with a bundle differs from the published HeFT (arXiv 2512.04619)."""

from dataclasses import dataclass

from vditrack.arrays import Floats
from vditrack.bundle.configuration import Matching
from vditrack.bundle.manifest import Input, Manifest, Source

_CHUNK = 25
"""Frames of a chunk in HeFT."""


@dataclass(frozen=True)
class _Published:
    """HeFT's published settings for one checkpoint; lengths are in model pixels."""

    block: int
    head: int
    channels: int
    """Kept of the head's, by rotary frequency."""
    height: int
    width: int
    argmax_radius: float
    search_radius: float
    visibility_threshold: float
    template_update: float


_PUBLISHED = {
    "Cosmos-Predict2-2B-Video2World": _Published(18, 6, 116, 704, 1280, 18, 42, 26, 0.05),
    "Wan2.1-T2V-1.3B-Diffusers": _Published(18, 1, 110, 480, 832, 17, 42, 18, 0.05),
    "CogVideoX-2b": _Published(15, 19, 64, 480, 720, 13, 43, 27, 0.1),
}
"""By the checkpoint's name, without its owner."""


def list_differences(
    manifest: Manifest, settings: Matching, length: int, queries: Floats
) -> list[str]:
    """List how reference tracking with a bundle differs from what HeFT does.

    Not compared: the denoising step, which is another noise level with every scheduler, and how a
    video is resized.

    Args:
        manifest: the bundle's.
        settings: the tracker's.
        length: frames of the clip.
        queries: [N, 3] (t, x, y).

    Returns:
        One sentence a difference, without a full stop.

    """
    published = _PUBLISHED.get(manifest.source.checkpoint.rsplit("/", 1)[-1])
    return [
        *_of_features(manifest.source, published),
        *(_of_sizes(manifest.input, settings, published) if published else []),
        *_of_windows(manifest.input),
        *_of_clip(length, queries),
    ]


def _of_features(source: Source, published: _Published | None) -> list[str]:
    if published is None:
        return [f"features, radii and thresholds of {source.checkpoint!r}, not of HeFT's models"]
    said = []
    if source.block != published.block:
        said.append(f"block {source.block}, not {published.block}")
    if source.heads != (published.head,):
        said.append(f"heads {list(source.heads)}, not [{published.head}]")
    if len(source.channels) != published.channels:
        said.append(f"{len(source.channels)} channels a head, not {published.channels}")
    if source.tensor != "keys" or not source.rotated:
        said.append(f"{'' if source.rotated else 'unrotated '}{source.tensor}, not rotated keys")
    if source.random_weights:
        said.append("random weights")
    return said


def _of_sizes(size: Input, settings: Matching, published: _Published) -> list[str]:
    said = []
    if (size.height, size.width) != (published.height, published.width):
        said.append(
            f"frames of {size.width} x {size.height}, not {published.width} x {published.height}"
        )
    for name in ("argmax_radius", "search_radius", "visibility_threshold", "template_update"):
        ours, theirs = getattr(settings, name), getattr(published, name)
        if ours != theirs:
            said.append(f"{name.replace('_', ' ')} {ours:g}, not {theirs:g}")
    return said


def _of_windows(size: Input) -> list[str]:
    said = []
    if size.frames != _CHUNK:
        said.append(
            f"single frames, not windows of {_CHUNK}"
            if size.frames == 1
            else f"windows of {size.frames} frames, not {_CHUNK}"
        )
    if size.described_frames != size.frames:
        said.append(
            f"described frames: the newest {size.described_frames} of a window's {size.frames}, "
            f"in chunks of {_CHUNK}, not all of a chunk in one window"
        )
    if size.attention != "window":
        said.append(
            f"attention: {size.attention}, to earlier latents and to those of the same "
            f"{size.described_frames} frames, not to all of a chunk"
        )
    if size.temporal_stride != 1:
        said.append(f"a latent for every {size.temporal_stride} frames, not one a frame")
    return said


def _of_clip(length: int, queries: Floats) -> list[str]:
    said = []
    tail, late = length % _CHUNK, int((queries[:, 0] > 0).sum())
    if tail:
        said.append(f"the tail is kept: HeFT drops the last {tail} of {length} frames")
    if late:
        said.append(f"{late} of {len(queries)} points start after frame 0, where HeFT asks for all")
    return said
