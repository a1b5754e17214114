"""The cost of each graph of a bundle, and of each part of the pipeline that it is cut out of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from vditrack.bundle.manifest import Encoder, Precision
from vditrack.coordinates import Grid
from vditrack_export.card import Card
from vditrack_export.plan.costs import Cost, Fusion, PrecisionName
from vditrack_export.plan.interpolation import extrapolate, interpolate
from vditrack_export.plan.lowering import lower
from vditrack_export.plan.matching import matching_cost
from vditrack_export.plan.networks import (
    EncoderRecording,
    record_decoder,
    record_encoder,
    record_feature_path,
    record_text_encoder,
    record_transformer,
)
from vditrack_export.plan.settings import (
    LatentSize,
    Setting,
    card_setting,
    check_setting,
    encoder_input,
    latent_size,
)

# Classifier-free guidance runs text encoder and transformer with the prompt and without.
_GUIDANCE_PASSES = 2
_DEPTHS = (3, 4)
"""Blocks at which a transformer is counted."""


@dataclass(frozen=True)
class Graphs:
    """One run of each graph of a bundle."""

    start: Cost | None
    """The encoder of a clip's first frame (``encoder_start.onnx``); None if `encoder` does it."""
    encoder: Cost
    """The encoder (``encoder.onnx``)."""
    transformer: Cost
    """From latents to descriptors (``features.onnx``)."""
    takes: Encoder
    """Frames and caches that a run of `encoder` takes."""

    @property
    def costs(self) -> dict[str, Cost]:
        """Costs by the name of the graph."""
        start = {} if self.start is None else {"encoder_start": self.start}
        return {**start, "encoder": self.encoder, "transformer": self.transformer}


def graph_costs(
    card: Card,
    setting: Setting,
    described: int,
    precision: Precision,
    fusion: Fusion,
    counted: Sequence[int] = (),
) -> Graphs:
    """Return the cost of one run of each graph that export writes.

    Args:
        card: The model.
        setting: The window.
        described: Newest latents of a window that get descriptors; with cached keys, which the
            card's input states, those of a step.
        precision: Of the graphs.
        fusion: What the engine computes in one kernel.
        counted: Lengths in latents at which the transformer is counted; other lengths between
            them are interpolated. Without any, the window's own length is counted.

    """
    _, rows, columns = latent_size(card, setting)

    def transformer(length: int) -> Cost:
        size = (length, rows, columns)
        return transformer_cost(card, size, described, precision.features, fusion)

    length, recorded = setting.latent_frames, record_encoders(card, setting, precision.encoder)
    return Graphs(
        start=None if recorded.start is None else lower(recorded.start, fusion),
        encoder=lower(recorded.step, fusion),
        transformer=interpolate(transformer, counted or (length,), length),
        takes=recorded.takes,
    )


@lru_cache(maxsize=1024)
def transformer_cost(
    card: Card, latents: LatentSize, described: int, precision: PrecisionName, fusion: Fusion
) -> Cost:
    """Return the cost of the exported path.

    Blocks of a transformer are alike: two depths are counted, and what a block adds is added for
    each of the others. A UNet is counted whole.

    Args:
        card: The model.
        latents: Frames, rows and columns of the latents.
        described: Newest latents that get descriptors.
        precision: Of the path.
        fusion: What the engine computes in one kernel.

    """

    def count(block: int) -> Cost:
        feature = msgspec.structs.replace(card.feature, block=block)
        shallow = msgspec.structs.replace(card, feature=feature)
        return lower(record_feature_path(shallow, latents, described, precision), fusion)

    block, (few, more) = card.feature.block, _DEPTHS
    if card.transformer.as_transformer is None or block <= more:
        return count(block)
    first, second = count(few), count(more)
    return extrapolate(first, second, (block - few) // (more - few))


def matching_costs(card: Card, setting: Setting, points: int) -> Cost:
    """Return the cost of tracking points into one new frame."""
    cell = card.cell
    grid = Grid(setting.height // cell, setting.width // cell, cell)
    channels = len(card.feature.heads) * len(card.family.denoiser.channels(card.feature))
    return matching_cost(grid, channels, points, card.matching)


@lru_cache(maxsize=64)
def reference_operations(card: Card, setting: Setting) -> dict[str, int]:
    """Return the operations of one denoising step of the whole pipeline, by part.

    A pipeline without a text encoder has no guidance, and the transformer runs once. So does that
    of HunyuanVideo, whose guidance is distilled, and whose text encoder is not counted.
    """
    latents = latent_size(card, setting)
    own = msgspec.structs.replace(card, tiny_encoder=None)
    operations = {"encoder": encode_window(record_encoders(own, setting), setting)}
    transformer = record_transformer(card, latents).operations
    prompt = record_text_encoder(card)
    if prompt is not None:
        operations["text encoder"] = _GUIDANCE_PASSES * prompt.operations
        transformer *= _GUIDANCE_PASSES
    operations["transformer"] = transformer
    decoder = record_decoder(card, latents, setting.temporal_stride)
    if decoder is not None:
        operations["decoder"] = decoder.operations
    return operations


def transformer_share(card: Card) -> float:
    """Return the operations of the exported path over those of one pass of the whole transformer.

    Both take one window as the card's input says: without guidance, on the same latents.

    Raises:
        InputError: The card's picture does not divide into cells.

    """
    setting = card_setting(card)
    check_setting(card, setting)
    latents = latent_size(card, setting)
    path = record_feature_path(card, latents, card.input.described_latents)
    return path.operations / record_transformer(card, latents).operations


def record_encoders(
    card: Card, setting: Setting, precision: PrecisionName = "fp32"
) -> EncoderRecording:
    """Record an encoder's graphs, which are the same for windows of any length but for some."""
    stride = setting.temporal_stride
    short = Setting(setting.height, setting.width, 1 + stride, stride)
    recorded = record_encoder(card, encoder_input(card, short), precision)
    if recorded.takes.caches or recorded.takes.frames == 1:
        return recorded
    return record_encoder(card, encoder_input(card, setting), precision)


def encode_window(recorded: EncoderRecording, setting: Setting) -> int:
    """Return the operations of encoding a whole window."""
    start, groups = recorded.start, setting.frames // recorded.takes.frames
    return groups * recorded.step.operations + (0 if start is None else start.operations)
