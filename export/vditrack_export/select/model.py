"""The model whose features are scored, with all blocks that are tried."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgspec
import typer
from torch import Tensor

from vditrack_export.card import Card
from vditrack_export.families.read_spec import Denoising
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.checkpoint import load_checkpoint, random_checkpoint
from vditrack_export.pipeline.empty_prompt import empty_prompt, random_prompt
from vditrack_export.pipeline.locate import locate_checkpoint
from vditrack_export.select.options import SelectOptions


def locate_options(options: SelectOptions, card: Card, steps: Sequence[Denoising]) -> SelectOptions:
    """Return the options with a folder of files in place of a cache or a name on the Hub.

    Raises:
        InputError: see `locate_checkpoint`.

    """
    timesteps = [step.timestep for step in steps]
    weights = locate_checkpoint(card, timesteps, options.weights, partial(typer.echo, err=True))
    return replace(options, weights=weights)


def load_model(
    card: Card,
    blocks: Sequence[int],
    steps: Sequence[Denoising],
    prompt: Tensor,
    options: SelectOptions,
) -> Backbone:
    """Load the models of a card with all blocks up to the last one that is tried.

    Args:
        card: the card.
        blocks: the blocks that are tried.
        steps: the denoising steps that are tried; one transformer has to be meant for all.
        prompt: the embedding of the empty prompt.
        options: the options of the command.

    Raises:
        InputError: the checkpoint is missing or does not match the card.

    """
    # Of a checkpoint, only the blocks up to the card's are loaded.
    deepest = msgspec.structs.replace(card.feature, block=max(blocks))
    extended = msgspec.structs.replace(card, feature=deepest)
    if options.weights.random:
        return Backbone(card, random_checkpoint(extended), prompt, random=True)
    timesteps = [step.timestep for step in steps]
    checkpoint = load_checkpoint(extended, options.weights, timesteps)
    return Backbone(card, checkpoint, prompt, random=False)


def load_prompt(card: Card, options: SelectOptions) -> Tensor:
    """Return the embedding of the empty prompt, random for random weights.

    Raises:
        InputError: see `empty_prompt`.

    """
    if options.weights.random:
        return random_prompt(card)
    return empty_prompt(card, options.weights)


def list_denoising_steps(card: Card, levels: Sequence[float]) -> tuple[Denoising, ...]:
    """Return the denoising steps of noise levels; levels that share a step give one."""
    denoiser = card.family.denoiser
    return tuple(dict.fromkeys(denoiser.denoising_at(card.feature, level) for level in levels))
