"""Command-line options that several verbs share."""

from pathlib import Path
from typing import Annotated

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


def check_weights(weights: Path | None, random_weights: bool) -> None:
    """Check that a command has one source of weights.

    Raises:
        InputError: it has none or two.

    """
    if (weights is None) != random_weights:
        raise InputError("give either --weights DIR or --random-weights.")
