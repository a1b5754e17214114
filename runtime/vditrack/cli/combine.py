"""Verb ``combine``: join bundles of points, motion and appearance."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vditrack.bundle.combine import combine_bundles
from vditrack.bundle.configuration import Propagation
from vditrack.bundle.folder import load_bundle
from vditrack.cli.console import echo
from vditrack.cli.options import SignatureOption
from vditrack.errors import InputError


def combine(
    points: Annotated[Path, typer.Argument(help="Folder of the bundle that tracks points.")],
    motion: Annotated[
        Path, typer.Option(help="Folder of the bundle of motion features.", show_default=False)
    ],
    appearance: Annotated[
        Path, typer.Option(help="Folder of the bundle of appearance features.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder that the new bundle is written to.", show_default=False
        ),
    ],
    motion_weight: Annotated[
        float,
        typer.Option(min=0, max=1, help="Weight of motion features; the rest is appearance."),
    ] = 0.4,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the softmax over similarities.")
    ] = 0.2,
    top_k: Annotated[int, typer.Option(min=1, help="Number of nearest neighbours of a cell.")] = 10,
    radius: Annotated[
        float, typer.Option(help="Largest distance of a neighbour, in cells of appearance.")
    ] = 15.0,
    context: Annotated[
        int, typer.Option(min=1, help="Number of past frames that labels are taken from.")
    ] = 28,
    require_signature: SignatureOption = None,
) -> None:
    """Join bundles of points, motion and appearance to one that propagates masks.

    Defaults are TED's settings for DAVIS.
    """
    # Written so that NaN fails too.
    for option, value in (("--temperature", temperature), ("--radius", radius)):
        if not 0 < value < float("inf"):
            raise InputError(f"{option} {value:g} is not a number above 0.")
    settings = Propagation(
        motion_weight=motion_weight,
        temperature=temperature,
        top_k=top_k,
        radius=radius,
        context=context,
    )
    load = partial(load_bundle, require_signature=require_signature, verify_files=True)
    combined = combine_bundles(load(points), load(motion), load(appearance), settings, output)
    echo(f"{combined.root} propagates masks ({combined.manifest.name})")
