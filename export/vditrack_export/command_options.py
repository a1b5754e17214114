"""Command-line options that several verbs share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vditrack.errors import InputError

CardArgument = Annotated[
    str, typer.Argument(help="Name of a model card, or path of a card (.toml).")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights", help="Folder of the checkpoint that the card names.", show_default=False
    ),
]
RandomWeightsOption = Annotated[
    bool,
    typer.Option(
        "--random-weights", help="Use random weights, for benchmarks and to try the command."
    ),
]
PromptOption = Annotated[
    Path | None,
    typer.Option(
        "--prompt",
        help="File with the embedding of the empty prompt; it is written if it does not exist.",
        show_default=False,
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size", help="Size of the frames as WIDTHxHEIGHT in pixels; default: the card's."
    ),
]
FramesOption = Annotated[
    int | None,
    typer.Option("--frames", help="Number of frames in a window; default: the card's."),
]
DescribedOption = Annotated[
    int | None,
    typer.Option(
        "--described",
        help="Number of newest frames of a window that get descriptors; default: all.",
    ),
]
TemporalStrideOption = Annotated[
    int | None,
    typer.Option(
        "--temporal-stride", help="Number of frames that share a latent; default: the card's."
    ),
]
BlockOption = Annotated[
    int | None, typer.Option("--block", help="Block whose tensor is read, counted from 0.")
]
HeadsOption = Annotated[
    str | None,
    typer.Option("--heads", help="Heads that are read, counted from 0, such as 1 or 0,3,7."),
]
PrecisionOption = Annotated[
    Literal["fp32", "fp16", "bf16"],
    typer.Option(
        "--precision",
        help="Precision of the products of transformer and encoder; with bf16, the encoder's are "
        "in fp16.",
    ),
]
EncoderPrecisionOption = Annotated[
    Literal["fp32", "fp16"] | None,
    typer.Option(
        "--encoder-precision",
        help="Precision of the encoder's products; default: as --precision says.",
    ),
]


def check_weights(weights: Path | None, random_weights: bool) -> None:
    """Check that a command has one source of weights.

    Raises:
        InputError: it has none or two.

    """
    if (weights is None) != random_weights:
        raise InputError("give either --weights DIR or --random-weights.")
