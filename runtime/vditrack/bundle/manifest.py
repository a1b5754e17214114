"""The schema of a bundle's manifest, ``bundle.json``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.bundle.configuration import Matching, Positive, Propagation, Share, Streaming

SCHEMA_VERSION = 7


Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was cut out of which checkpoint."""

    card: str
    checkpoint: str
    checkpoint_sha256: Sha256
    licence: str
    block: Annotated[int, Meta(ge=0)]
    heads: Annotated[tuple[int, ...], Meta(min_length=1)]
    tensor: Literal["keys", "queries", "hidden"]
    """Keys or queries of the block's self-attention, or what the block puts out."""
    rotated: bool
    """Keys and queries after the rotary embedding, or before it."""
    channels: Annotated[tuple[int, ...], Meta(min_length=1)]
    """Channels kept of each head, after selection by rotary frequency."""
    timestep: float
    signal_level: Share
    noise_level: Share
    """The transformer sees signal_level x latents + noise_level x noise."""
    noise_seed: int
    random_weights: bool
    """Whether nothing was learnt: an architecture for benchmarks, that tracks nothing."""


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The window of frames that the transformer sees at a time."""

    height: Positive
    width: Positive
    frames: Positive
    """Frames in one window."""
    temporal_stride: Literal[1, 4, 8]
    """Frames that share one latent: beyond the first frame, which has one of its own."""
    described_frames: Positive
    """Frames at the end of a window that get descriptors; the earlier ones are context."""
    overlap: Annotated[int, Meta(ge=0)] = 1
    """Latents that each window of a clip has in common with the one before it, where a window
    describes all its frames; each is described by the earlier window."""

    @property
    def latents(self) -> int:
        """Latents in one window."""
        return latents_of(self.frames, self.temporal_stride)

    @property
    def described_latents(self) -> int:
        """Latents at the end of a window that get descriptors."""
        whole = self.described_frames == self.frames
        return self.latents if whole else self.described_frames // self.temporal_stride

    def __post_init__(self) -> None:
        stride, frames, described = self.temporal_stride, self.frames, self.described_frames
        claims = [
            (described <= frames, "described_frames is more than frames"),
            (
                self.overlap < max(self.latents, 2),
                "windows overlap by no fewer latents than they have",
            ),
            (
                (frames - 1) % stride == 0,
                f"frames are not 1 + a multiple of temporal_stride {stride}",
            ),
            (
                described == frames or described % stride == 0,
                f"described_frames are neither all nor a multiple of temporal_stride {stride}",
            ),
        ]
        for holds, complaint in claims:
            if not holds:
                raise ValueError(complaint)


def latents_of(frames: int, temporal_stride: int) -> int:
    """Latents of so many frames: one for the first, and one for every stride after it."""
    return 1 + (frames - 1) // temporal_stride


class Encoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``encoder.onnx`` takes: ``frames`` uint8 [frames, height, width, 3] RGB.

    With caches it takes ``cache.0``, ``cache.1``, ... beside the frames and gives ``next_cache.0``,
    ... beside the latents, for the frames that follow. At the beginning of a clip they are zero;
    where latents share frames, the first frame of a clip has a graph of its own instead,
    ``encoder_start.onnx``, which takes that frame alone. Without caches, and where latents share
    frames, it takes a whole window.
    """

    frames: Positive
    """In one run."""
    caches: Annotated[int, Meta(ge=0)]
    """Arrays carried from run to run; 0 where each run stands alone."""


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``features.onnx`` gives, of each described frame: float32 [rows, columns, channels]."""

    rows: Positive
    columns: Positive
    stride: Positive
    """Side of a grid cell, in model pixels."""
    channels: Positive


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What products of matrices and convolutions are rounded to; all else is in FP32."""

    encoder: Literal["fp32", "fp16"]
    features: Literal["fp32", "fp16", "bf16"]


class PrecisionCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a precision below FP32 changed tracks, measured at export on rendered clips.

    The clips have the size at which they were tracked; lengths are in their pixels.
    """

    clips: Positive
    frames: Positive
    height: Positive
    width: Positive
    median_move: float
    """Median distance of points from where they were in FP32, over frames in which they are
    visible."""
    average_jaccard_fp32: float
    """TAP-Vid's Average Jaccard in FP32, in percent."""
    average_jaccard: float
    """The same in the bundle's precision."""
    accepted: bool
    """Whether a limit was exceeded and the user accepted it."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size in bytes and digest of one file of the bundle."""

    size: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``bundle.json``."""

    schema_version: int
    name: str
    notes: str
    source: Source
    input: Input
    encoder: Encoder
    output: Output
    matching: Matching
    streaming: Streaming = Streaming()
    propagation: Propagation | None = None
    """How masks are propagated, with the bundles in ``appearance`` and, as a rule, ``motion``; None
    if the bundle has neither."""
    precision: Precision
    precision_check: PrecisionCheck | None
    """None in FP32, where parity says all, and with random weights, which track nothing."""
    files: dict[str, FileRecord]
    parity: dict[str, float]
    """Relative errors measured at export, by what was compared."""
    tools: dict[str, str]
    """Versions of the programs that made the bundle."""
