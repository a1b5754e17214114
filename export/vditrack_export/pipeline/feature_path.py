"""The feature path of a card: through a transformer, or through a UNet."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vditrack_export.card import Card, UNet, transformer_of
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.registry import family_of
from vditrack_export.families.unet.family import unet_family


def kept_channels(card: Card) -> tuple[int, ...]:
    """Channels kept of each head; of a UNet's hidden states, which count as one head, all.

    Raises:
        InputError: the card's frequency range keeps none.

    """
    shape, feature = card.transformer, card.feature
    if isinstance(shape, UNet):
        return tuple(range(shape.width(feature.block)))
    return tuple(family_of(card).channels(transformer_of(card).head_dim, feature))


def feature_path(
    card: Card,
    model: Any,  # noqa: ANN401
    latent_shape: LatentShape,
    cut: Cut,
    denoising: Denoising,
    prompt: Tensor,
) -> nn.Module:
    """Cut the way from latents to descriptors out of a card's model.

    Args:
        card: of the model.
        model: of the class of the card's family; its submodules are shared, not copied.
        latent_shape: channels, frames, rows, columns of the latents.
        cut: what is read.
        denoising: the step.
        prompt: float32 [tokens, text_dim].

    """
    if isinstance(card.transformer, UNet):
        family = unet_family(card.transformer)
        return family.path(card, model, latent_shape, cut, denoising, prompt)
    return family_of(card).path(model, latent_shape, cut, denoising, prompt)
