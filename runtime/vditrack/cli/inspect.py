"""Verb ``inspect``: check a bundle and show what is in it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from vditrack.bundle.folder import Bundle, bundled_model, load_bundle
from vditrack.cli.options import Json
from vditrack.engine_builder.listing import ListedBuild, build_table, list_builds
from vditrack.engine_builder.verdicts import verify_builds
from vditrack.errors import EngineError


def inspect(
    bundle: Annotated[
        Path | None, typer.Argument(help="Folder of a bundle; the bundled model by default.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare engines' tracks with the bundle's, and record it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a bundle's files and show what is in it."""
    checked = load_bundle(bundle or bundled_model())
    failures = verify_builds(checked) if verify else []
    builds = list_builds(checked)
    if as_json:
        told = {**msgspec.structs.asdict(checked.manifest), "engines": builds}
        typer.echo(msgspec.json.encode(told).decode())
    else:
        _show_bundle(checked, builds)
    if failures:
        raise EngineError(" ".join(failures))


def _show_bundle(checked: Bundle, builds: Sequence[ListedBuild]) -> None:
    manifest = checked.manifest
    console = Console()
    console.print(f"[bold]{manifest.name}[/bold]  {checked.root}\n{manifest.notes}\n")
    for title in ("source", "input", "encoder", "output", "matching", "precision", "gate"):
        if (part := getattr(manifest, title)) is not None:
            console.print(_table(title, msgspec.structs.asdict(part).items()))
    sizes = {name: f"{record.size / 1e6:.2f} MB" for name, record in manifest.files.items()}
    console.print(_table("files, all unaltered", sizes.items()))
    errors = {name: f"{error:.1e}" for name, error in manifest.parity.items()}
    console.print(_table("parity at export", errors.items()))
    console.print(_table("made with", manifest.tools.items()))
    for build_found in builds:
        console.print(build_table(build_found, manifest))


def _table(title: str, rows: Iterable[tuple[str, object]]) -> Table:
    table = Table("", "", title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name.replace("_", " "), str(value))
    return table
