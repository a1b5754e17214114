"""The cost of each new latent of a stream, in the forms that export makes.

A bundle has the checkpoint's own encoder or a tiny one, and a transformer that runs on whole
windows, or on the newest latents with cached keys and values of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from vditrack_export.card import Card
from vditrack_export.families.base_shapes import TinyEncoderKind
from vditrack_export.families.tiny_encoders.shapes import derive_shape
from vditrack_export.plan.runs import Plan, Question, plan_bundle


@dataclass(frozen=True)
class LatentCost:
    """What a stream computes for each new latent, in one form."""

    form: str
    """Encoder and attention, as the options of export name them."""
    planned: bool
    """Whether this is the form of the bundle that was planned."""
    encoder_operations: int
    transformer_operations: int
    cache_bytes: int
    """What encoder and transformer keep from run to run."""
    seconds: float
    """Time for the latent, without tracking."""
    rate: float
    """Frames a second: as many frames as share a latent, in that time."""
    fits: bool
    """Whether the bundle fits the device's memory."""


def latent_costs(card: Card, planned: Plan, question: Question) -> tuple[LatentCost, ...]:
    """Return the cost of a new latent in the form of a card, then in the others.

    Args:
        card: The card.
        planned: Its bundle.
        question: The device and the conditions.

    """
    others = (plan_bundle(form, form.input, question) for form in _other_forms(card))
    return _measure(planned, planned=True), *(_measure(plan, planned=False) for plan in others)


def encoder_choices(card: Card) -> tuple[TinyEncoderKind | None, ...]:
    """Return the encoders that give a card's latents; None is the checkpoint's own."""
    tiny = card.encoder.tiny_encoder
    if tiny is None:
        return (None,)
    try:
        derive_shape(tiny.kind, card.encoder)
    except ValueError:
        return (None,)
    return (None, tiny.kind)


def _other_forms(card: Card) -> Iterator[Card]:
    """Yield the card with other encoders and kinds of attention."""
    size = card.input
    for attention in card.transformer.attentions:
        if attention != "window" and size.latents == 1:
            continue
        changed = size
        if attention != size.attention:
            described = min(size.temporal_stride, size.frames)
            changed = msgspec.structs.replace(size, attention=attention, described_frames=described)
        for encoder in encoder_choices(card):
            if (attention, encoder) != (size.attention, card.tiny_encoder):
                yield msgspec.structs.replace(card, input=changed, tiny_encoder=encoder)


def _measure(plan: Plan, *, planned: bool) -> LatentCost:
    encoder, transformer = plan.engines["encoder"], plan.engines["transformer"]
    latents = plan.step_frames // plan.setting.temporal_stride
    return LatentCost(
        form=f"{plan.encoder or 'own encoder'}, {plan.attention}",
        planned=planned,
        encoder_operations=plan.encoder_runs * encoder.operations // latents,
        transformer_operations=transformer.operations // latents,
        cache_bytes=plan.cache_bytes,
        seconds=plan.step_seconds / latents,
        rate=plan.step_frames / plan.step_seconds,
        fits=plan.fits,
    )
