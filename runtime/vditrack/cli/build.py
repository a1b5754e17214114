"""Verb ``build``: build the engines of a bundle."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from vditrack.bundle.folder import load_bundle
from vditrack.cli.console import PlainConsole
from vditrack.cli.options import Json
from vditrack.cli.progress import progress_bars
from vditrack.engine_builder.listing import BuildStatus, format_build
from vditrack.engine_builder.options import BuildOptions, Compatibility
from vditrack.engine_builder.run import build_bundle
from vditrack.engine_builder.workspace import parse_workspace
from vditrack.inference.engine_identity import Target, mismatches
from vditrack.inference.machine import read_machine


def build(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of the bundle; the engines are written into it.")
    ],
    target: Annotated[Target, typer.Option(help="Library that will run the engines.")],
    arch: Annotated[
        str | None,
        typer.Option(
            help="GPU architectures to build for, as in sm86,sm89; TensorRT-RTX only. Default: "
            "that of this machine's GPU."
        ),
    ] = None,
    workspace: Annotated[
        str,
        typer.Option(
            help="Limit of scratch memory, in GiB. auto takes the free memory of the GPU or, "
            "without a GPU, half of the free memory of the host."
        ),
    ] = "auto",
    optimization_level: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=5,
            help="How long to search for fast kernels, 0 to 5; TensorRT only. Default: TensorRT's.",
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps kernel timings between builds; TensorRT only. Default: none."
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Build an engine that later versions run too, and that is slower; TensorRT only.",
        ),
    ] = False,
    hardware_compatible: Annotated[
        Compatibility | None,
        typer.Option(
            help="Build an engine that other GPUs run too, and that is slower; TensorRT only, not "
            "on JetPack. Default: for this GPU only."
        ),
    ] = None,
    strip_weights: Annotated[
        bool,
        typer.Option(
            "--strip-weights",
            help="Leave the weights out of the engine; they are read from the graphs at load. "
            "TensorRT only.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the engines of a bundle for TensorRT or, without a GPU, for TensorRT-RTX."""
    options = BuildOptions(
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
        content = {"folder": str(folder), "identity": identity}
        typer.echo(msgspec.json.encode(content).decode())
        return
    reasons = mismatches(identity, checked, read_machine())
    PlainConsole().print(
        format_build(BuildStatus(folder.name, identity, reasons), checked.manifest)
    )
