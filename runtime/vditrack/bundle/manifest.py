"""The schema of a bundle's manifest, ``bundle.json``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.bundle.configuration import Matching, Propagation, Streaming
from vditrack.bundle.value_types import Count, Positive, Share, Side

SCHEMA_VERSION = 9


Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Adapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A low-rank adapter (LoRA) that was fused into the weights of the checkpoint."""

    name: str
    """Name of its file."""
    scale: float
    sha256: Sha256


class TinyEncoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A small distilled encoder that was exported in place of the checkpoint's own."""

    kind: Literal["taehv", "taesd"]
    name: str | None
    """Name of its file or folder; None for random weights."""
    sha256: Sha256 | None
    """Digest of its files; None for random weights."""


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checkpoint, and the features that were exported from it."""

    card: str
    checkpoint: str
    checkpoint_sha256: Sha256
    licence: str
    block: Count
    heads: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=10_000)]
    tensor: Literal["keys", "queries", "hidden"]
    """Keys or queries of the block's self-attention, or the block's output."""
    rotated: bool
    """Whether keys and queries are read after the rotary embedding."""
    channels: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=10_000)]
    """Channels of each head that were kept, selected by rotary frequency."""
    timestep: float
    signal_level: Share
    noise_level: Share
    """The transformer's input is signal_level x latents + noise_level x noise."""
    noise_seed: int
    random_weights: bool
    """Whether the weights are random: an architecture for benchmarks, which tracks nothing."""
    expert: Literal["high", "low"] | None = None
    """Of a checkpoint with one transformer for high noise and one for low noise, which was read."""
    quantisation: tuple[str, ...] = ()
    """Types of weights with fewer than 16 bits that the checkpoint was dequantised from, such as
    ``float8_e4m3fn`` or ``Q4_K``."""
    adapters: tuple[Adapter, ...] = ()
    tiny_encoder: TinyEncoder | None = None
    """None if the encoder is the checkpoint's own."""


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The window of frames that the transformer reads at a time."""

    height: Side
    width: Side
    frames: Positive
    """Frames in one window."""
    temporal_stride: Literal[1, 4, 8]
    """Frames that share one latent, except for the first frame, which has its own."""
    described_frames: Positive
    """Frames at the end of a window that get descriptors; the earlier ones are context."""
    overlap: Count = 1
    """Latents that consecutive windows of a clip share, if a window describes all its frames; the
    earlier window describes them."""
    attention: Literal["window", "causal", "cached"] = "window"
    """What ``features.onnx`` takes. "window": the latents of a window. Otherwise the described
    latents, the *chunk*, alone, and the keys and values that earlier chunks of the window had when
    they were the newest. "causal": the transformer was trained to attend so, and the result is
    exact. "cached": it was trained to attend to later frames too, and the result is approximate."""

    @property
    def latents(self) -> int:
        """Latents in one window."""
        return latents_of(self.frames, self.temporal_stride)

    @property
    def described_latents(self) -> int:
        """Latents at the end of a window that get descriptors."""
        whole = self.described_frames == self.frames
        return self.latents if whole else self.described_frames // self.temporal_stride

    @property
    def cached_latents(self) -> int:
        """Latents whose keys and values are cached; 0 if ``features.onnx`` takes whole windows."""
        return 0 if self.attention == "window" else self.latents - self.described_latents

    @property
    def latents_of_step(self) -> int:
        """New latents of each run of ``features.onnx`` in a stream."""
        return 1 if self.attention == "window" else self.described_latents

    @property
    def frames_of_step(self) -> int:
        """Frames of a stream from one run of ``features.onnx`` to the next."""
        return self.latents_of_step * self.temporal_stride

    @property
    def frames_of_first_step(self) -> int:
        """Frames of a stream up to the first run of ``features.onnx``."""
        return 1 + (self.latents_of_step - 1) * self.temporal_stride

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
            (
                self.attention == "window" or self.latents % max(self.described_latents, 1) == 0,
                f'attention is "{self.attention}", and the {self.latents} latents of a window are '
                f"not a multiple of the {self.described_latents} described ones",
            ),
        ]
        for holds, complaint in claims:
            if not holds:
                raise ValueError(complaint)


def latents_of(frames: int, temporal_stride: int) -> int:
    """Return the number of latents of a clip: one for frame 0, and one for every stride after."""
    return 1 + (frames - 1) // temporal_stride


class Encoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs of ``encoder.onnx``: ``frames`` uint8 [frames, height, width, 3] RGB, and caches.

    With caches it also takes ``cache.0``, ``cache.1``, ... and returns ``next_cache.0``, ... for
    the frames that follow. At the beginning of a clip they are zero. If latents share frames, the
    first frame of a clip has its own graph instead, ``encoder_start.onnx``, which takes that frame
    alone. If latents share frames and there are no caches, it takes a whole window.
    """

    frames: Positive
    """Frames in one run."""
    caches: Count
    """Arrays that are passed from run to run; 0 if runs are independent."""


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The output of ``features.onnx`` for a described frame: float32 [rows, columns, channels]."""

    rows: Positive
    columns: Positive
    stride: Positive
    """Side of a grid cell, in model pixels."""
    channels: Side


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Precision of matrix products and convolutions; everything else is in FP32."""

    encoder: Literal["fp32", "fp16"]
    features: Literal["fp32", "fp16", "bf16"]


class PrecisionCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a precision below FP32 changed tracks, measured at export on rendered clips.

    The clips have the size at which they were tracked; lengths are in their pixels.
    """

    clips: Positive
    frames: Positive
    height: Side
    width: Side
    median_move: float
    """Median distance of points from where they were in FP32, over frames in which they are
    visible."""
    average_jaccard_fp32: float
    """TAP-Vid's Average Jaccard in FP32, in percent."""
    average_jaccard: float
    """The same in the bundle's precision."""
    accepted: bool
    """Whether a limit was exceeded and the user accepted it."""


class AttentionCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How cached keys and values changed tracks, measured at export on rendered clips in FP32.

    The clips have the size at which they were tracked; lengths are in their pixels.
    """

    clips: Positive
    frames: Positive
    height: Side
    width: Side
    median_move: float
    """Median distance of points from where whole windows track them, over frames in which they are
    visible."""
    window_frames: Positive
    """Frames of the windows, which may be fewer than the bundle's."""
    average_jaccard_window: float
    """TAP-Vid's Average Jaccard with whole windows, in percent."""
    average_jaccard: float
    """The same with cached keys and values."""
    accepted: bool
    """Whether a limit was exceeded and the user accepted it."""


class LoweredParity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a network in a precision below FP32 is from the original, measured at export.

    The graphs were written in that precision, and ONNX's reference implementation ran them on a
    window of this size. Graphs of other sizes have the same weights and operations.
    """

    network: Literal["encoder", "transformer"]
    """Latents of the encoder, or descriptors of the transformer from the original's latents."""
    precision: Literal["fp16", "bf16"]
    error: float
    """Largest difference from the original in FP32, relative to the original's largest
    magnitude."""
    limit: float
    """Error above which the export is refused."""
    height: Side
    width: Side
    frames: Positive


class EncoderAgreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a tiny encoder is from the checkpoint's own, measured at export in FP32.

    Both encoded rendered clips, and the transformer read the latents of each.
    """

    clips: Positive
    frames: Positive
    """Frames of a clip."""
    height: Side
    width: Side
    relative_error: float
    """Root mean square of the latents' difference, relative to the standard deviation of the own
    encoder's latents."""
    correlation: float
    """Of all numbers of the latents of both, from -1 to 1."""
    median_move: float
    """Median distance, in pixels, of points from where they are with the own encoder, over frames
    in which they are visible with it."""
    average_jaccard_own: float
    """TAP-Vid's Average Jaccard with the own encoder, in percent."""
    average_jaccard: float
    """The same with the tiny encoder."""
    accepted: bool
    """Whether the latents are not the own encoder's, and the user accepted it."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The size in bytes and the digest of a file of the bundle."""

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
    """How masks are propagated, with the bundles in ``appearance``, unless appearance is read as
    points are, and, as a rule, ``motion``; None if the bundle propagates no masks."""
    precision: Precision
    precision_check: PrecisionCheck | None
    """None in FP32, where parity says all, and with random weights, which track nothing."""
    encoder_agreement: EncoderAgreement | None = None
    """None if the encoder is the checkpoint's own, or if that was not at hand."""
    int8: PrecisionCheck | None = None
    """Effect of the INT8 graphs for CPUs on tracks; None if the bundle has none."""
    attention_check: AttentionCheck | None = None
    """None unless keys and values are cached as an approximation, and with random weights."""
    files: dict[str, FileRecord]
    parity: dict[str, float]
    """Relative errors of the graphs in FP32, measured at export, by the name of the comparison."""
    lowered_parity: tuple[LoweredParity, ...] = ()
    """Errors of the graphs as written, in precisions below FP32."""
    tools: dict[str, str]
    """Versions of the programs that made the bundle."""
