"""The verb ``vditrack export``."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console

from vditrack.bundle.folder import Bundle
from vditrack.bundle.manifest import Precision, PrecisionCheck
from vditrack.errors import InputError, VditrackError
from vditrack_export.card import Card, load_card


def export(
    card: Annotated[str, typer.Argument(help="Name of a model card, or the path of one (.toml).")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder that becomes the bundle.", show_default=False),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of the checkpoint that the card names.", show_default=False),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="Export the architecture alone, which tracks nothing."
        ),
    ] = False,
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="File for the embedding of the empty prompt: read if it exists, else written.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of the frames; the card's by default.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames in a window.")] = None,
    described: Annotated[
        int | None, typer.Option(help="Newest frames that get descriptors; all of them by default.")
    ] = None,
    temporal_stride: Annotated[int | None, typer.Option(help="Frames that share a latent.")] = None,
    block: Annotated[int | None, typer.Option(help="Block that is read, from 0.")] = None,
    heads: Annotated[
        str | None, typer.Option(help="Heads that are read, from 0, as in 1 or 0,3,7.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"],
        typer.Option(help="What the transformer's products are rounded to."),
    ] = "fp32",
    encoder_precision: Annotated[
        Literal["fp32", "fp16"], typer.Option(help="The same of the encoder's.")
    ] = "fp32",
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Take a precision that moves tracks beyond the limits."),
    ] = False,
    masks: Annotated[
        bool,
        typer.Option("--masks", help="Also export what propagates masks of objects, if CARD says."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the bundle's manifest as JSON.")
    ] = False,
) -> None:
    """Cut the tracking path out of a checkpoint and write it as a bundle."""
    if (weights is None) != random_weights:
        raise InputError("give either --weights DIR or --random-weights.")
    # A wrong card is told of before torch takes its seconds to load.
    wanted = _changed(
        load_card(card),
        {
            **_sides(size),
            "frames": frames,
            "described_frames": frames if described is None else described,
            "temporal_stride": temporal_stride,
        },
        {"block": block, "heads": _heads(heads)},
    )
    try:
        from vditrack_export.pipeline.export import Rounding, Weights, export_bundle
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"export needs {error.name}, which is not installed. "
            "Run `pip install vditrack[export,cpu]`."
        ) from error
    stages = Console(stderr=True)
    with stages.status("") as status:

        def report(stage: str) -> None:
            stages.print(f"[dim]{stage}[/dim]")
            status.update(stage)

        rounding = Rounding(Precision(encoder=encoder_precision, features=precision), accept)
        source = Weights(weights, prompt)
        bundle = export_bundle(wanted, source, output, report, rounding, masks=masks)
    if json:
        typer.echo(msgspec.json.encode(bundle.manifest).decode())
    else:
        _summarise(bundle)


def _changed(card: Card, size: dict[str, object], feature: dict[str, object]) -> Card:
    """Put what the command line says in the place of the card's."""

    def given(values: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if value is not None}

    try:
        # By way of plain data, so that all of the card's rules are checked again.
        plain = msgspec.to_builtins(card)
        plain["input"] |= given(size)
        plain["feature"] |= given(feature)
        return msgspec.convert(plain, Card)
    except msgspec.ValidationError as error:
        raise InputError(f"card {card.name}, as changed: {error}.") from error


def _sides(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"--size {text} is not HEIGHTxWIDTH, as in 480x832.") from error
    return {"height": height, "width": width}


def _heads(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(head) for head in text.split(",")]
    except ValueError as error:
        raise InputError(f"--heads {text} is not a list of numbers, as in 0,3,7.") from error


def _summarise(bundle: Bundle) -> None:
    manifest = bundle.manifest
    size = sum(record.size for record in manifest.files.values())
    typer.echo(f"{bundle.root}: {manifest.name}, {size / 1e6:.1f} MB")
    typer.echo(
        f"  block {manifest.source.block}, heads {', '.join(map(str, manifest.source.heads))}, "
        f"{manifest.output.channels} channels on {manifest.output.rows} x "
        f"{manifest.output.columns} cells of {manifest.output.stride} pixels"
    )
    if manifest.source.random_weights:
        typer.echo("  random weights: for benchmarks and engine builds, it tracks nothing")
    for comparison, error in manifest.parity.items():
        typer.echo(f"  {comparison.replace('_', ' ')}: largest relative error {error:.1e}")
    if manifest.precision_check is not None:
        _summarise_gate(manifest.precision, manifest.precision_check)


def _summarise_gate(precision: Precision, gate: PrecisionCheck) -> None:
    typer.echo(
        f"  encoder in {precision.encoder}, transformer in {precision.features}: over {gate.clips} "
        f"clips of {gate.height} x {gate.width} x {gate.frames} the median point moves by "
        f"{gate.median_move:.3f} pixels, Average Jaccard {gate.average_jaccard_fp32:.1f} to "
        f"{gate.average_jaccard:.1f}{', beyond the limits but accepted' * gate.accepted}"
    )
