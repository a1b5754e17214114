"""The verb ``vditrack select``."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from vditrack.errors import InputError, VditrackError
from vditrack_export.card import Card, load_card
from vditrack_export.select.options import (
    Asked,
    asked_bands,
    asked_blocks,
    asked_levels,
    asked_mask_levels,
    asked_weights,
    check_destination,
)

_LOOKALIKES = ("lookalikes:1", "different:1")
_FEW_CLIPS = 3


def select(
    card: Annotated[str, typer.Argument(help="Name of a model card, or the path of one (.toml).")],
    task: Annotated[
        Literal["points", "masks"],
        typer.Option(help="What is read is to track points, or to propagate masks of objects."),
    ] = "points",
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Clips with known tracks, as eval takes them: synthetic:SEED, tabletop:SEED, or a "
            "path. For masks, clips with these: lookalikes:1 and different:1 by default. May be "
            "given again.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of the checkpoint that the card names.", show_default=False),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="The architecture alone, which knows nothing."),
    ] = False,
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="File for the embedding of the empty prompt: read if it exists, else written.",
            show_default=False,
        ),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only the first clips of each data set; for masks 3 by default.",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Of each clip, from its beginning.")] = 25,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Noise levels, as in 0.05,0.1; by default the card's, 0.05, 0.1, 0.2 and 0.4, for "
            "masks the card's, 0.05, 0.3, 0.6 and 0.9."
        ),
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Blocks, as in 0-4 or 0,8,16-20; all by default.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            help="Parts of the rotary frequencies, from the highest, as in 0-1,0.4-1; the card's, "
            "0-1, 0.15-1, 0.4-1 and 0.6-1 by default. For points."
        ),
    ] = None,
    tensor: Annotated[
        Literal["keys", "queries", "hidden"] | None,
        typer.Option(help="What is read; the card's by default. For points."),
    ] = None,
    motion_weight: Annotated[
        str | None,
        typer.Option(
            help="Weights of motion features, as in 0.4,0.6; 0.2, 0.4, 0.6 and 0.8 by default, "
            "beside each part alone. For masks."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the picture and all scores."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="File for a new card (.toml) with the best choice.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find the block, noise level and more that track best, on clips with truth."""
    if (weights is None) != random_weights:
        raise InputError("give either --weights DIR or --random-weights.")
    if write is not None:
        check_destination(write)
    asked = Asked(
        card=card,
        data=tuple(data or (_LOOKALIKES if task == "masks" else ())),
        weights=weights,
        prompt=prompt,
        clips=clips or (_FEW_CLIPS if task == "masks" else None),
        frames=frames,
        output=output,
        write=write,
        as_json=as_json,
    )
    if task == "masks":
        _refuse(task, {"--bands": bands, "--tensor": tensor})
        _select_for_masks(asked, noise, blocks, motion_weight)
    else:
        _refuse(task, {"--motion-weight": motion_weight})
        _select_for_points(asked, noise, blocks, bands, tensor)
    if not as_json:
        for written in filter(None, (output, write)):
            typer.echo(f"written: {written}")


def _select_for_points(
    asked: Asked, noise: str | None, blocks: str | None, bands: str | None, tensor: str | None
) -> None:
    if not asked.data:
        raise InputError("give --data: clips with known tracks, such as synthetic:1.")
    card = load_card(asked.card)
    wanted = _with_tensor(card, tensor)
    levels = asked_levels(noise, wanted)
    tried = asked_blocks(blocks, wanted.transformer.require_transformer().layers)
    ranges = asked_bands(bands, wanted)
    datasets = asked.open_datasets("tapvid")
    _require()
    from vditrack_export.select.points.task import select_for_points

    _warn(asked)
    select_for_points(asked, wanted, levels, tried, ranges, datasets)


def _select_for_masks(
    asked: Asked, noise: str | None, blocks: str | None, motion_weight: str | None
) -> None:
    card = load_card(asked.card)
    layers = card.transformer.require_transformer().layers
    if card.masks is None:
        raise InputError(
            f"card {card.name} does not say how masks are propagated: it has no [masks]. Write "
            "that section (docs/masks.md), with any choice to begin with."
        )
    levels = asked_mask_levels(noise, card.masks)
    tried, motion_weights = asked_blocks(blocks, layers), asked_weights(motion_weight)
    datasets = asked.open_datasets("davis")
    _require()
    from vditrack_export.select.masks.task import select_for_masks

    _warn(asked)
    select_for_masks(asked, card, card.masks, levels, tried, motion_weights, datasets)


def _refuse(task: str, given: dict[str, str | None]) -> None:
    """Refuse options that are not of the task."""
    for option, value in given.items():
        if value is not None:
            raise InputError(f"{option} has no meaning with --task {task}. Leave it out.")


def _require() -> None:
    """Refuse to begin where something is not installed that is needed at the end."""
    from importlib import import_module

    for name in ("torch", "diffusers", "onnx", "onnxruntime", "scipy", "matplotlib"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise VditrackError(
                f"select needs {error.name}, which is not installed. "
                "Run `pip install vditrack[export,eval,cpu]`."
            ) from error


def _warn(asked: Asked) -> None:
    if asked.weights is None:
        typer.echo("warning: random weights know nothing, whatever scores best.", err=True)


def _with_tensor(card: Card, tensor: str | None) -> Card:
    feature = msgspec.structs.replace(card.feature, tensor=tensor or card.feature.tensor)
    return msgspec.structs.replace(card, feature=feature)
