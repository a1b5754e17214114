"""Command-line options that several verbs share."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from vditrack.errors import InputError
from vditrack_export.checkpoints.sources import Lora, Weights, parse_lora

CardArgument = Annotated[
    str, typer.Argument(help="Name of a model card, or path of a card (.toml).")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="The checkpoint that the card names: its folder, one file with all models, or its "
        "name ORG/NAME on the Hugging Face Hub, from which it is downloaded.",
        show_default=False,
    ),
]
TransformerOption = Annotated[
    Path | None,
    typer.Option(
        "--transformer",
        help="File or folder of the transformer or UNet, in place of that of --weights.",
        show_default=False,
    ),
]
VaeOption = Annotated[
    Path | None,
    typer.Option(
        "--vae",
        help="File or folder of the autoencoder, in place of that of --weights.",
        show_default=False,
    ),
]
TextEncoderOption = Annotated[
    Path | None,
    typer.Option(
        "--text-encoder",
        help="Folder with tokenizer and text_encoder, if it is not that of --weights.",
        show_default=False,
    ),
]
LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        help="LoRA to fuse into the transformer, as FILE or FILE@SCALE; default scale: 1. May be "
        "repeated.",
        show_default=False,
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--variant",
        help="Variant of the weight files, such as fp16; default: the plain files if there are "
        "any.",
        show_default=False,
    ),
]
ExpertOption = Annotated[
    Literal["high", "low"] | None,
    typer.Option(
        "--expert",
        help="Transformer to read of a checkpoint with one for high noise and one for low noise; "
        "default: by the card's timestep.",
        show_default=False,
    ),
]
EncoderOption = Annotated[
    Literal["taehv", "taesd"] | None,
    typer.Option(
        "--encoder",
        help="Tiny encoder in place of the checkpoint's own: taehv for video models, taesd for "
        "UNets.",
        show_default=False,
    ),
]
EncoderWeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--encoder-weights",
        help="Weights of the tiny encoder: a file of TAEHV (.safetensors or .pth), or a folder or "
        "file of diffusers' AutoencoderTiny for taesd.",
        show_default=False,
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
AttentionOption = Annotated[
    Literal["window", "causal", "cached"] | None,
    typer.Option(
        "--attention",
        help="What the transformer runs on: each whole window, or each new latent with cached keys "
        "and values of the window before it, which is approximate (cached) unless the model was "
        "trained so (causal); default: the card's.",
        show_default=False,
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


def check_weights(weights: Weights, random_weights: bool) -> None:
    """Check that a command has one source of weights.

    Raises:
        InputError: It has none or two.

    """
    if weights.random != random_weights or (weights.folder is not None and random_weights):
        raise InputError("give either --weights DIR or --random-weights.")
    if random_weights and replace(weights, prompt=None) != Weights(None):
        raise InputError("--random-weights goes with no file of weights. Leave one of both out.")


def check_tiny_encoder(encoder: str | None, weights: Weights, random_weights: bool) -> None:
    """Check that a tiny encoder has weights, and that its weights have a tiny encoder.

    Raises:
        InputError: They do not.

    """
    if encoder is not None and weights.tiny_encoder is None and not random_weights:
        raise InputError(
            f"--encoder {encoder} has no weights. Give them with --encoder-weights, or give "
            "--random-weights."
        )
    if encoder is None and weights.tiny_encoder is not None:
        raise InputError(
            "--encoder-weights are those of a tiny encoder. Give --encoder taehv or --encoder "
            "taesd as well."
        )


def parse_loras(texts: Sequence[str] | None) -> tuple[Lora, ...]:
    """Return the adapters of repeated options.

    Raises:
        InputError: See `parse_lora`.

    """
    return tuple(parse_lora(text) for text in texts or ())
