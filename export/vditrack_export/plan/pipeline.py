"""The cost of each part of tracking, and of each part of the pipeline that it is cut out of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from vditrack.coordinates import Grid
from vditrack_export.card import Card
from vditrack_export.plan.costs import Cost, Fusion
from vditrack_export.plan.interpolation import interpolate
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
    Setting,
    card_setting,
    check_setting,
    latent_size,
    window_input,
)

# Classifier-free guidance runs text encoder and transformer with the prompt and without.
_GUIDANCE_PASSES = 2


@dataclass(frozen=True)
class Work:
    """What is computed of one window."""

    described: int
    """Newest latent frames that get descriptors."""
    new_frames: int
    """Frames that were not in the window before. If they are all but one, windows are encoded from
    their own first frame; otherwise the encoder has seen the other frames already."""
    points: int
    """Points tracked. Every new frame is matched; what lies between two latents is interpolated,
    which is elementwise."""


def tracking_costs(
    card: Card, setting: Setting, work: Work, fusion: Fusion, counted: Sequence[int] = ()
) -> dict[str, Cost]:
    """Return the cost of one window, by part.

    Args:
        card: The model.
        setting: The window.
        work: What is computed of it.
        fusion: What the engine computes in one kernel.
        counted: Lengths in latents at which the transformer is counted; other lengths between
            them are interpolated. Without any, the window's own length is counted.

    """
    _, rows, columns = latent_size(card, setting)

    def transformer(length: int) -> Cost:
        # With windows described whole, longer ones are described whole too.
        described = length if work.described == setting.latent_frames else work.described
        return lower(record_feature_path(card, (length, rows, columns), described), fusion)

    length, cell = setting.latent_frames, card.cell
    grid = Grid(setting.height // cell, setting.width // cell, cell)
    channels = len(card.feature.heads) * len(card.family.denoiser.channels(card.feature))
    return {
        "encoder": _encoder_cost(card, setting, work.new_frames, fusion),
        "transformer": interpolate(transformer, counted or (length,), length),
        "matching": matching_cost(grid, channels, work.points, card.matching).repeat(
            work.new_frames
        ),
    }


@lru_cache(maxsize=64)
def reference_costs(card: Card, setting: Setting, fusion: Fusion) -> dict[str, Cost]:
    """Return the cost of one denoising step of the whole pipeline, by part, without matching.

    A pipeline without a text encoder has no guidance, and the transformer runs once. So does that
    of HunyuanVideo, whose guidance is distilled, and whose text encoder is not counted.
    """
    latents = latent_size(card, setting)
    costs = {"encoder": _encoder_cost(card, setting, setting.frames, fusion)}
    transformer = lower(record_transformer(card, latents), fusion)
    prompt = record_text_encoder(card)
    if prompt is not None:
        costs["text encoder"] = lower(prompt, fusion).repeat(_GUIDANCE_PASSES)
        transformer = transformer.repeat(_GUIDANCE_PASSES)
    costs["transformer"] = transformer
    decoder = record_decoder(card, latents, setting.temporal_stride)
    if decoder is not None:
        costs["decoder"] = lower(decoder, fusion)
    return costs


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


def _encoder_cost(card: Card, setting: Setting, new_frames: int, fusion: Fusion) -> Cost:
    """Return the cost of encoding a window's new frames."""
    recorded = _recorded_encoder(card, setting)
    step, takes = lower(recorded.step, fusion), recorded.takes
    if takes.frames >= setting.frames > 1:
        return step
    if takes.caches and new_frames >= setting.frames - 1:
        groups = (setting.frames - 1) // takes.frames
        return lower(recorded.start, fusion) + step.repeat(groups)
    return step.repeat(max(1, new_frames // takes.frames))


def _recorded_encoder(card: Card, setting: Setting) -> EncoderRecording:
    """Record an encoder's graphs, which are the same for windows of any length but for some."""
    stride = setting.temporal_stride
    short = Setting(setting.height, setting.width, 1 + stride, stride)
    recorded = record_encoder(card, window_input(card, short))
    if recorded.takes.caches or recorded.takes.frames == 1:
        return recorded
    return record_encoder(card, window_input(card, setting))
