"""The verb ``vditrack quantize``."""

from pathlib import Path
from typing import Annotated

import typer

from vditrack.bundle.folder import Bundle, load_bundle
from vditrack.cli.console import PlainConsole, echo, echo_json
from vditrack.cli.options import Json, SignatureOption
from vditrack.errors import VditrackError, install_command


def quantize(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle in FP32.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder that the new bundle is written to; may be that of the bundle.",
            show_default=False,
        ),
    ],
    require_signature: SignatureOption = None,
    as_json: Json = False,
) -> None:
    """Add INT8 graphs for CPUs with INT8 dot products (VNNI, Arm) to a copy of a bundle."""
    checked = load_bundle(bundle, require_signature=require_signature, verify_files=True)
    try:
        from vditrack_export.int8.quantize import quantize_bundle
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"quantize needs {error.name}, which is not installed. "
            f"Run `{install_command('export', 'cpu')}`."
        ) from error
    stages = PlainConsole(stderr=True)
    with stages.status("") as status:

        def report_stage(stage: str) -> None:
            stages.print(stage, style="dim")
            status.update(stage)

        made = quantize_bundle(checked, output, report_stage)
    if as_json:
        echo_json(made.manifest)
    else:
        _print_summary(made)


def _print_summary(bundle: Bundle) -> None:
    echo(f"{bundle.root}: {bundle.manifest.name}, with INT8 graphs for CPUs")
    for made in (bundle, *bundle.parts.values()):
        check = made.manifest.int8
        if check is not None:
            echo(
                f"  {made.root.name}: on {check.clips} clips of {check.width} x {check.height} x "
                f"{check.frames} the median point moves by {check.median_move:.3f} pixels, Average "
                f"Jaccard {check.average_jaccard_fp32:.1f} to {check.average_jaccard:.1f}"
            )
