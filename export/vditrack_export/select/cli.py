"""The verb ``vditrack select``."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from vditrack.cli.console import echo
from vditrack.errors import InputError, VditrackError, install_command
from vditrack_export.card import Card, load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.command_options import (
    CardArgument,
    ExpertOption,
    LoraOption,
    PromptOption,
    RandomWeightsOption,
    TextEncoderOption,
    TransformerOption,
    VaeOption,
    VariantOption,
    WeightsOption,
    check_weights,
    parse_loras,
)
from vditrack_export.select.options import (
    SelectOptions,
    check_destination,
    parse_bands,
    parse_blocks,
    parse_mask_noise_levels,
    parse_motion_weights,
    parse_noise_levels,
)

_LOOKALIKES = ("lookalikes:1", "different:1")
_FEW_CLIPS = 3


def select(
    card: CardArgument,
    task: Annotated[
        Literal["points", "masks"],
        typer.Option(help="Task that the features are chosen for."),
    ] = "points",
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Data set with known tracks, as for eval: synthetic:SEED, leaving:SEED, "
            "tabletop:SEED or a path; for masks, a data set with masks; default: lookalikes:1 and "
            "different:1. May be repeated.",
            show_default=False,
        ),
    ] = None,
    weights: WeightsOption = None,
    transformer: TransformerOption = None,
    vae: VaeOption = None,
    text_encoder: TextEncoderOption = None,
    lora: LoraOption = None,
    variant: VariantOption = None,
    expert: ExpertOption = None,
    random_weights: RandomWeightsOption = False,
    prompt: PromptOption = None,
    clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use only the first clips of each data set; default: all, for masks 3.",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=2, help="Number of frames of each clip, from its beginning.")
    ] = 25,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Noise levels to try, such as 0.05,0.1; default: the card's, 0.05, 0.1, 0.2, 0.4; "
            "for masks the card's, 0.05, 0.3, 0.6 and 0.9."
        ),
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Blocks to try, such as 0-4 or 0,8,16-20; default: all.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            help="Ranges of rotary frequencies to try, from the highest, such as 0-1,0.4-1; "
            "default: the card's, 0-1, 0.15-1, 0.4-1 and 0.6-1. For points."
        ),
    ] = None,
    tensor: Annotated[
        Literal["keys", "queries", "hidden"] | None,
        typer.Option(help="Tensor that is read; default: the card's. For points."),
    ] = None,
    motion_weight: Annotated[
        str | None,
        typer.Option(
            help="Weights of motion features to try, such as 0.4,0.6; default: 0.2, 0.4, 0.6 and "
            "0.8. Each part alone is always tried. For masks."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write the picture and all scores to."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="File to write a new card (.toml) with the best choice to.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find the block, noise level, heads and frequencies with which a backbone tracks best."""
    source = Weights(
        weights, transformer, vae, text_encoder, prompt, parse_loras(lora), variant, expert
    )
    check_weights(source, random_weights)
    if write is not None:
        check_destination(write)
    options = SelectOptions(
        card=card,
        data=tuple(data or (_LOOKALIKES if task == "masks" else ())),
        weights=source,
        clips=clips or (_FEW_CLIPS if task == "masks" else None),
        frames=frames,
        output=output,
        write=write,
        as_json=as_json,
    )
    if task == "masks":
        _refuse_options(task, {"--bands": bands, "--tensor": tensor})
        _select_for_masks(options, noise, blocks, motion_weight)
    else:
        _refuse_options(task, {"--motion-weight": motion_weight})
        _select_for_points(options, noise, blocks, bands, tensor)
    if not as_json:
        for written in filter(None, (output, write)):
            echo(f"written: {written}")


def _select_for_points(
    options: SelectOptions,
    noise: str | None,
    blocks: str | None,
    bands: str | None,
    tensor: str | None,
) -> None:
    if not options.data:
        raise InputError("give --data: clips with known tracks, such as synthetic:1.")
    card = load_card(options.card)
    changed = _replace_tensor(card, tensor)
    levels = parse_noise_levels(noise, changed)
    tried = parse_blocks(blocks, changed.require_transformer().layers)
    ranges = parse_bands(bands, changed)
    datasets = options.open_datasets("tapvid")
    _require_packages()
    from vditrack_export.select.points.task import select_for_points

    _warn_of_random_weights(options)
    select_for_points(options, changed, levels, tried, ranges, datasets)


def _select_for_masks(
    options: SelectOptions, noise: str | None, blocks: str | None, motion_weight: str | None
) -> None:
    card = load_card(options.card)
    layers = card.require_transformer().layers
    if card.masks is None:
        raise InputError(
            f"card {card.name} has no [masks], which says how masks are propagated. Write that "
            "section (docs/masks.md), with any choice to begin with."
        )
    levels = parse_mask_noise_levels(noise, card.masks)
    tried, motion_weights = parse_blocks(blocks, layers), parse_motion_weights(motion_weight)
    datasets = options.open_datasets("davis")
    _require_packages()
    from vditrack_export.select.masks.task import select_for_masks

    _warn_of_random_weights(options)
    select_for_masks(options, card, card.masks, levels, tried, motion_weights, datasets)


def _refuse_options(task: str, given: dict[str, str | None]) -> None:
    """Raise an error for options that the task does not have."""
    for option, value in given.items():
        if value is not None:
            raise InputError(f"{option} does not apply to --task {task}. Leave it out.")


def _require_packages() -> None:
    """Raise an error before the work begins if a package is missing."""
    from importlib import import_module

    for name in ("torch", "diffusers", "onnx", "onnxruntime", "tomlkit", "scipy", "matplotlib"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise VditrackError(
                f"select needs {error.name}, which is not installed. "
                f"Run `{install_command('export', 'eval', 'cpu')}`."
            ) from error


def _warn_of_random_weights(options: SelectOptions) -> None:
    if options.weights.random:
        echo("warning: the weights are random, so the best choice has no meaning.", err=True)


def _replace_tensor(card: Card, tensor: str | None) -> Card:
    feature = msgspec.structs.replace(card.feature, tensor=tensor or card.feature.tensor)
    return msgspec.structs.replace(card, feature=feature)
