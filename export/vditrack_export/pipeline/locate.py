"""What an export reads of a checkpoint, and where it lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vditrack_export.card import Card
from vditrack_export.checkpoints.hub import Parts
from vditrack_export.checkpoints.locate import locate_weights
from vditrack_export.checkpoints.sources import Weights, require_lora_files


def locate_checkpoint(
    card: Card, timesteps: Sequence[float], weights: Weights, report: Callable[[str], None]
) -> Weights:
    """Return the weights with a folder of files in place of a cache or a name on the Hub.

    Args:
        card: The card of the checkpoint.
        timesteps: Timesteps that are read.
        weights: What a user names.
        report: Called with what is done, such as a download.

    Raises:
        InputError: There is no such checkpoint or LoRA, or it is not clear which checkpoint to
            take.

    """
    # Checked before anything is downloaded or read.
    require_lora_files(weights.loras)
    parts = make_parts(card, timesteps, weights)
    return locate_weights(weights, card.checkpoint, parts, report)


def make_parts(card: Card, timesteps: Sequence[float], weights: Weights) -> Parts:
    """Return what an export reads of a checkpoint: nothing that a user gives as another file."""
    family = card.family
    stored = weights.prompt is not None and weights.prompt.exists()
    no_text = stored or card.text_encoder is None or weights.text_encoder is not None
    return Parts(
        denoiser=None if weights.transformer else family.denoiser_folder,
        encoder=None if weights.vae else card.own_encoder.folder,
        text_encoders=() if no_text else family.denoiser.text_encoders,
        timesteps=tuple(timesteps),
        expert=weights.expert,
        variant=weights.variant,
    )
