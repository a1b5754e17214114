"""The verb ``vditrack build``."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from vditrack.bundle.folder import load_bundle
from vditrack.cli.progress import progress_bars
from vditrack.engine_builder.listing import ListedBuild, build_table
from vditrack.engine_builder.options import Compatibility, Options
from vditrack.engine_builder.run import build_bundle
from vditrack.engine_builder.workspace import parse_workspace
from vditrack.inference.engine_identity import Target, mismatches
from vditrack.inference.machine import read_machine


def build(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle; its engines go into it.")],
    target: Annotated[Target, typer.Option(help="Library that will run the engines.")],
    arch: Annotated[
        str | None,
        typer.Option(
            help="TensorRT-RTX: GPUs to build for, as in sm86,sm89; this machine's by default."
        ),
    ] = None,
    workspace: Annotated[
        str, typer.Option(help="Scratch memory in GiB; auto is what is free, or half of it.")
    ] = "auto",
    optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="TensorRT: how long it looks for kernels.")
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            help="TensorRT: file that keeps what builds measured. TensorRT-RTX measures nothing."
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="TensorRT: run in later versions too; slower."),
    ] = False,
    hardware_compatible: Annotated[
        Compatibility | None,
        typer.Option(help="TensorRT, not on JetPack: run on other GPUs too; slower."),
    ] = None,
    strip_weights: Annotated[
        bool,
        typer.Option("--strip-weights", help="TensorRT: take the weights from the graphs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a bundle's engines for TensorRT, or, without a GPU, for TensorRT-RTX."""
    options = Options(
        target=target,
        architectures=tuple(arch.lower().replace(" ", "").split(",")) if arch else (),
        workspace=parse_workspace(workspace),
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        strip_weights=strip_weights,
    )
    checked = load_bundle(bundle)
    with progress_bars(quiet=as_json) as bars:
        folder, identity = build_bundle(checked, options, bars)
    if as_json:
        told = {"folder": str(folder), "identity": identity}
        typer.echo(msgspec.json.encode(told).decode())
        return
    reasons = mismatches(identity, checked, read_machine())
    Console().print(build_table(ListedBuild(folder.name, identity, reasons), checked.manifest))
