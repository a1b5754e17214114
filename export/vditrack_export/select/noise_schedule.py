"""Denoising steps of any noise level, on the schedule of a card's family."""

import math

import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from vditrack.errors import InputError
from vditrack_export.card import Card, CogVideoXTransformer, CosmosTransformer
from vditrack_export.families.read_spec import Denoising

_COGVIDEOX_SHIFTS = (3.0, 1.0)
"""``snr_shift_scale`` in the scheduler's configuration of CogVideoX-2B and of CogVideoX-5B."""
_SAME_LEVEL = 1e-4


def denoising_at(card: Card, noise: float) -> Denoising:
    """Return the step at which a model takes latents with so much noise.

    The card's own level gives the card's own step. Others follow the family's schedule: flow
    matching, where signal and noise sum to 1 (Wan, LTX-Video, HunyuanVideo: timestep 1000 noise;
    Cosmos: timestep noise), or the thousand steps of CogVideoX, whose nearest is taken.

    Args:
        card: of the model.
        noise: more than 0 and less than 1.

    Raises:
        InputError: the card's own step is not on a schedule that is known for its family.

    """
    own, seed = card.feature, card.feature.noise_seed
    if abs(noise - own.noise_level) < _SAME_LEVEL:
        return Denoising(own.timestep, own.signal_level, own.noise_level, seed)
    if isinstance(card.transformer, CogVideoXTransformer):
        return _cogvideox(card, noise)
    unit = 1 if isinstance(card.transformer, CosmosTransformer) else 1000
    return Denoising(round(unit * noise, 9), round(1 - noise, 12), noise, seed)


def _cogvideox(card: Card, noise: float) -> Denoising:
    levels = _cogvideox_levels(card)
    step = int((levels - noise).abs().argmin())
    level = float(levels[step])
    return Denoising(
        timestep=float(step),
        signal=round(math.sqrt(1 - level**2), 8),
        noise=round(level, 8),
        seed=card.feature.noise_seed,
    )


def _cogvideox_levels(card: Card) -> Tensor:
    """Noise levels [1000] of the steps of the schedule on which the card's own step lies."""
    for shift in _COGVIDEOX_SHIFTS:
        scheduler = CogVideoXDDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            snr_shift_scale=shift,
        )
        levels = torch.as_tensor((1 - scheduler.alphas_cumprod).clamp_min(0).sqrt())
        own = min(int(card.feature.timestep), len(levels) - 1)
        if abs(float(levels[own]) - card.feature.noise_level) < _SAME_LEVEL:
            return levels
    raise InputError(
        f"card {card.name}: timestep and noise_level are of no schedule known for CogVideoX, so no "
        "other level can be tried. Correct them, or give --noise the card's own level."
    )
