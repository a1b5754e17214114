"""The verb ``vditrack export``."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from vditrack.bundle.folder import Bundle
from vditrack.bundle.manifest import Precision, PrecisionCheck
from vditrack.cli.console import PlainConsole, clean_text
from vditrack.cli.options import SIZE_ORDER, parse_size
from vditrack.errors import InputError, VditrackError, install_command
from vditrack_export.card import Card, load_card
from vditrack_export.command_options import (
    CardArgument,
    PromptOption,
    RandomWeightsOption,
    WeightsOption,
    check_weights,
)

_SAME_ASPECT = 0.15
"""Difference of aspect ratios up to which a size is one that is turned around."""


def export(
    card: CardArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to write the bundle to.", show_default=False),
    ],
    weights: WeightsOption = None,
    random_weights: RandomWeightsOption = False,
    prompt: PromptOption = None,
    size: Annotated[
        str | None,
        typer.Option(help="Size of the frames as WIDTHxHEIGHT in pixels; default: the card's."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Number of frames in a window; default: the card's.")
    ] = None,
    described: Annotated[
        int | None,
        typer.Option(
            help="Number of newest frames of a window that get descriptors; default: all."
        ),
    ] = None,
    temporal_stride: Annotated[
        int | None, typer.Option(help="Number of frames that share a latent; default: the card's.")
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Block whose tensor is read, counted from 0.")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="Heads that are read, counted from 0, such as 1 or 0,3,7.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"],
        typer.Option(
            help="Precision of the products of transformer and encoder; with bf16, the encoder's "
            "are in fp16."
        ),
    ] = "fp32",
    encoder_precision: Annotated[
        Literal["fp32", "fp16"] | None,
        typer.Option(help="Precision of the encoder's products; default: as --precision says."),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Accept a precision that moves tracks beyond the limits."),
    ] = False,
    masks: Annotated[
        bool,
        typer.Option(
            "--masks",
            help="Also export the features that propagate masks.",
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the bundle's manifest as JSON.")
    ] = False,
) -> None:
    """Export what tracking needs of a checkpoint as a bundle of ONNX graphs."""
    check_weights(weights, random_weights)
    # A wrong card is reported before torch is imported, which takes seconds.
    own = load_card(card)
    changed = _change_card(
        own,
        {
            **_read_size(size, own),
            "frames": frames,
            "described_frames": frames if described is None else described,
            "temporal_stride": temporal_stride,
        },
        {"block": block, "heads": _parse_heads(heads)},
    )
    try:
        from vditrack_export.pipeline.backbone import Weights
        from vditrack_export.pipeline.export import Rounding, export_bundle
        from vditrack_export.pipeline.precision import choose_precision
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"export needs {error.name}, which is not installed. "
            f"Run `{install_command('export', 'cpu')}`."
        ) from error
    stages = PlainConsole(stderr=True)
    with stages.status("") as status:

        def report_stage(stage: str) -> None:
            stages.print(stage, style="dim")
            status.update(stage)

        rounding = Rounding(choose_precision(precision, encoder_precision), accept)
        source = Weights(weights, prompt)
        bundle = export_bundle(changed, source, output, report_stage, rounding, masks=masks)
    if json:
        typer.echo(msgspec.json.encode(bundle.manifest).decode())
    else:
        _print_summary(bundle)


def _change_card(card: Card, size: dict[str, object], feature: dict[str, object]) -> Card:
    """Return a card with the values of the command line in place of its own."""

    def drop_none(values: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if value is not None}

    try:
        # Converted from plain data, so that all rules of the card are checked again.
        plain = msgspec.to_builtins(card)
        plain["input"] |= drop_none(size)
        plain["feature"] |= drop_none(feature)
        return msgspec.convert(plain, Card)
    except msgspec.ValidationError as error:
        raise InputError(f"card {card.name}, as changed: {error}.") from error


def _read_size(text: str | None, card: Card) -> dict[str, object]:
    """Return the height and width of a text ``WIDTHxHEIGHT``.

    Raises:
        InputError: The text is not such a size, or it has the card's aspect turned around, as if
            the height came first.

    """
    if text is None:
        return {}
    width, height = parse_size(text)
    aspect, own = width / max(height, 1), card.input.width / card.input.height
    turned = (aspect - 1) * (own - 1) < 0 and abs(1 / max(aspect, 1e-9) / own - 1) < _SAME_ASPECT
    if turned:
        raise InputError(
            f"--size {text} is {width} pixels wide and {height} high, the card's frames are "
            f"{card.input.width} wide and {card.input.height} high. The order is {SIZE_ORDER}: "
            f"give --size {height}x{width}. For the other orientation, set width and height in a "
            "copy of the card."
        )
    return {"height": height, "width": width}


def _parse_heads(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(head) for head in text.split(",")]
    except ValueError as error:
        raise InputError(f"--heads {text} is not a list of numbers, such as 0,3,7.") from error


def _print_summary(bundle: Bundle) -> None:
    manifest = bundle.manifest
    size = sum(record.size for record in manifest.files.values())
    typer.echo(f"{bundle.root}: {clean_text(manifest.name)}, {size / 1e6:.1f} MB")
    typer.echo(
        f"  block {manifest.source.block}, heads {', '.join(map(str, manifest.source.heads))}, "
        f"{manifest.output.channels} channels on {manifest.output.columns} x "
        f"{manifest.output.rows} cells of {manifest.output.stride} pixels"
    )
    if manifest.source.random_weights:
        typer.echo("  random weights: for benchmarks and engine builds; it cannot track")
    for comparison, error in manifest.parity.items():
        typer.echo(f"  {comparison.replace('_', ' ')}: largest relative error {error:.1e}")
    if manifest.precision_check is not None:
        _print_precision_check(manifest.precision, manifest.precision_check)


def _print_precision_check(precision: Precision, check: PrecisionCheck) -> None:
    typer.echo(
        f"  encoder in {precision.encoder}, transformer in {precision.features}: on {check.clips} "
        f"clips of {check.width} x {check.height} x {check.frames} the median point moves by "
        f"{check.median_move:.3f} pixels, Average Jaccard {check.average_jaccard_fp32:.1f} to "
        f"{check.average_jaccard:.1f}{', beyond the limits but accepted' * check.accepted}"
    )
