"""The schema of a bundle's manifest, ``bundle.json``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SCHEMA_VERSION = 6


Positive = Annotated[int, Meta(gt=0)]


PositiveReal = Annotated[float, Meta(gt=0)]


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
    signal_level: Annotated[float, Meta(ge=0, le=1)]
    noise_level: Annotated[float, Meta(ge=0, le=1)]
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


class Visibility(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logistic regression: the confidence that a point is seen where it is placed."""

    bias: float
    correlation: float
    """Weight of the correlation of the point's first patch with the frame."""
    first_similarity: float
    """Of the cosine similarity with the point's first descriptor."""
    template_similarity: float
    """Of that with its template."""
    distance: float
    """Of the way that flow there and back misses its start by, in pixels at a width of 256."""

    @property
    def of_evidence(self) -> tuple[float, float, float, float]:
        """All weights, in the order above."""
        return self.correlation, self.first_similarity, self.template_similarity, self.distance


class Holding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How points are held to the pixels that they were asked for on (`vditrack.points`)."""

    recovery_similarity: Annotated[float, Meta(ge=-1, lt=1)]
    """Least cosine with its first descriptor, of a place where a lost point is taken up again."""
    recovery_correlation: Annotated[float, Meta(ge=-1, lt=1)]
    """Least correlation of its first patches there."""
    visibility: Visibility


class Matching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How descriptors become tracks (HeFT, arXiv 2512.04619); lengths in model pixels."""

    temperature: PositiveReal
    """Of the softmax over cosine similarities; 1 is the paper's."""
    argmax_radius: PositiveReal
    search_radius: PositiveReal
    visibility_threshold: PositiveReal
    """Largest forward-backward distance (RMS over frames) of a visible point."""
    similarity_threshold: Annotated[float, Meta(ge=-1, lt=1)]
    """Least cosine similarity of a visible point with its template; -1 is the paper's."""
    recovery_threshold: Annotated[float, Meta(ge=-1, lt=1)]
    """The same for a point that was not seen within the horizon, so cannot be checked backward."""
    template_update: Annotated[float, Meta(ge=0, le=1)]
    """Weight of the newest descriptor in a visible point's template."""
    update_after_loss: bool
    """Whether a template is still updated after its point was lost once; true is the paper's."""
    horizon: Positive
    """Frames that the backward check goes back at most."""
    holding: Holding | None = None
    """None: points go where they match, which is the paper's; the five settings from
    ``visibility_threshold`` to ``recovery_threshold``, ``update_after_loss`` and ``horizon`` are
    of that alone."""


class Displacement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How motion is read of where appearance goes (`vditrack.features.cell_motion`)."""

    frames: Positive
    """Up to how many frames away, before and after, a cell is looked for."""
    reach: PositiveReal
    """How far it may go in a frame, in cells."""
    temperature: PositiveReal
    """Of the softmax over cosines with the places where it may be."""
    gain: PositiveReal
    """What velocities are multiplied by: descriptors that know their place, or much of what is
    around, draw them towards rest."""
    deviation: Annotated[float, Meta(ge=0, le=1)]
    """What share of its deviation from its object's velocity a cell is expected to keep."""
    spread: PositiveReal
    """Difference of velocities, in cells a frame, at which they agree by exp(-1/2)."""
    slack: Annotated[float, Meta(ge=1)]
    """How far, in cells, from where their object has moved to, labels are taken."""
    drift: Annotated[float, Meta(ge=0)]
    """How much farther for each frame since; no farther than ``radius`` in all."""
    falloff: Annotated[float, Meta(ge=0)]
    """How much less a product is as far from there as labels are taken, with the square of the
    distance, where there are several objects to be told apart."""
    uncovered: Annotated[float, Meta(ge=0)]
    """How much less a product counts with background farther away than that, by up to ``slack``
    again: what comes into view looks like what is next to it."""


class Propagation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How object masks are propagated with fused features (TED, arXiv 2512.02339)."""

    motion_weight: Annotated[float, Meta(ge=0, le=1)]
    """λ: the fused descriptor is λ x motion beside (1 - λ) x appearance, each of length 1."""
    temperature: PositiveReal
    """Of the softmax over dot products of fused descriptors."""
    top_k: Positive
    """Cells, of all context frames together, that a cell takes its label from."""
    radius: PositiveReal
    """Largest distance of such a cell, in cells of the appearance grid."""
    context: Positive
    """Frames before the newest whose labels are asked, beside the first frame's."""
    displacement: Displacement | None = None
    """Reads motion of the appearance features; None where a bundle in ``motion`` has features of
    its own."""


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What products of matrices and convolutions are rounded to; all else is in FP32."""

    encoder: Literal["fp32", "fp16"]
    features: Literal["fp32", "fp16", "bf16"]


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a precision below FP32 did to tracks, measured at export on rendered clips.

    The clips have the size at which they were tracked; lengths are in their pixels.
    """

    clips: Positive
    frames: Positive
    height: Positive
    width: Positive
    median_move: float
    """Of points from where they were in FP32, over frames in which they are visible."""
    average_jaccard_fp32: float
    average_jaccard: float
    """Of TAP-Vid, in percent."""
    accepted: bool
    """Whether it went beyond the limits, and was accepted nevertheless."""


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
    propagation: Propagation | None = None
    """How masks are propagated, with the bundles in ``appearance`` and, as a rule, ``motion``; None
    where the bundle has neither."""
    precision: Precision
    gate: Gate | None
    """None in FP32, where parity says all, and with random weights, which track nothing."""
    files: dict[str, FileRecord]
    parity: dict[str, float]
    """Relative errors measured at export, by what was compared."""
    tools: dict[str, str]
    """Versions of the programs that made the bundle."""
