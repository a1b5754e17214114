"""The verb ``vditrack export``."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from vditrack.bundle import Bundle
from vditrack.errors import InputError, VditrackError
from vditrack_export.card import Convolutions, load_card


def export(
    card: Annotated[
        str, typer.Argument(help="Name of a model card (tiny), or the path of one (.toml).")
    ],
    weights: Annotated[
        Path, typer.Option(help="Folder of the checkpoint that the card names.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder that becomes the bundle.", show_default=False),
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print the bundle's manifest as JSON.")
    ] = False,
) -> None:
    """Cut the tracking path out of a checkpoint and write it as a bundle."""
    # A wrong card is told of before torch takes its seconds to load.
    wanted = load_card(card)
    if not isinstance(wanted.encoder, Convolutions):
        raise InputError(
            f"card {wanted.name}: its encoder cannot be exported yet; `vditrack plan` works."
        )
    try:
        from vditrack_export.export import export_bundle
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

        bundle = export_bundle(wanted, weights, output, report)
    if json:
        typer.echo(msgspec.json.encode(bundle.manifest).decode())
    else:
        _summarise(bundle)


def _summarise(bundle: Bundle) -> None:
    manifest = bundle.manifest
    size = sum(record.size for record in manifest.files.values())
    typer.echo(f"{bundle.root}: {manifest.name}, {size / 1e6:.1f} MB")
    typer.echo(
        f"  block {manifest.source.block}, heads {', '.join(map(str, manifest.source.heads))}, "
        f"{manifest.output.channels} channels on {manifest.output.rows} x "
        f"{manifest.output.columns} cells of {manifest.output.stride} pixels"
    )
    for comparison, error in manifest.parity.items():
        typer.echo(f"  {comparison.replace('_', ' ')}: largest relative error {error:.1e}")
