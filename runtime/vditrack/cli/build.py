"""Verb ``build``: build the engines of a bundle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vditrack.bundle.folder import Bundle, load_bundle
from vditrack.cli.console import PlainConsole, echo_json
from vditrack.cli.options import Json, SignatureOption
from vditrack.cli.progress import progress_bars
from vditrack.engine_builder.listing import BuildStatus, format_build
from vditrack.engine_builder.options import BuildOptions, Compatibility
from vditrack.engine_builder.parts import (
    Built,
    NotBuilt,
    Part,
    build_parts,
    list_parts,
    parse_parts,
)
from vditrack.engine_builder.workspace import parse_workspace
from vditrack.errors import EngineError
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
    parts: Annotated[
        str | None,
        typer.Option(
            help="Parts to build, as in points,appearance: points is the bundle itself, motion and "
            "appearance are the bundles in it that propagate masks. Default: all that there are."
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
    record_host: Annotated[
        bool,
        typer.Option(
            "--record-host", help="Record the name of this computer in the identity of the build."
        ),
    ] = False,
    require_signature: SignatureOption = None,
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
        record_host=record_host,
    )
    checked = load_bundle(bundle, require_signature=require_signature, verify_files=True)
    found: list[Built | NotBuilt] = []
    with progress_bars(quiet=as_json) as bars:
        for result in build_parts(checked, options, parse_parts(parts), bars):
            found.append(result)
            if not as_json and not (isinstance(result, NotBuilt) and result.failed):
                _print_result(result, list_parts(checked))
    built = [result for result in found if isinstance(result, Built)]
    not_built = [result for result in found if isinstance(result, NotBuilt)]
    if as_json:
        echo_json({"built": built, "not_built": not_built})
    _require_no_failure(not_built)


def _print_result(result: Built | NotBuilt, parts: dict[Part, Bundle]) -> None:
    console, own = PlainConsole(), parts[result.part]
    if isinstance(result, NotBuilt):
        console.print(_format_not_built(result))
        return
    reasons = mismatches(result.identity, own, read_machine())
    status = BuildStatus(result.part, result.folder.name, result.identity, reasons)
    console.print(format_build(status, own.manifest))


def _format_not_built(result: NotBuilt) -> str:
    return f"not built: {result.part} for {', '.join(result.architectures)}: {result.reason}"


def _require_no_failure(not_built: Sequence[NotBuilt]) -> None:
    """Let the command fail if a build failed; the builds that were written stay."""
    failed = [_format_not_built(result) for result in not_built if result.failed]
    if failed:
        raise EngineError(" ".join(failed))
