"""One bundle for points and masks out of bundles that were exported apart: ``vditrack combine``."""

import shutil
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from vditrack.atomic_files import staged_folder
from vditrack.bundle.folder import (
    APPEARANCE,
    CONTENTS,
    MOTION,
    Bundle,
    Propagation,
    load_bundle,
    seal_bundle,
)
from vditrack.errors import InputError

_PARTS = (MOTION, APPEARANCE)


def combine_bundles(
    points: Bundle, motion: Bundle, appearance: Bundle, settings: Propagation, destination: Path
) -> Bundle:
    """Put the bundles of motion and of appearance features into a copy of the one of points.

    They may be of different checkpoints, as TED's (arXiv 2512.02339) are. Built engines and the
    parts that a bundle has already stay behind.

    Args:
        points: tracks points.
        motion: of any window.
        appearance: of single frames.
        settings: how their features are fused, and labels propagated with them.
        destination: folder that the bundle becomes; an older bundle there is replaced at the end.

    Raises:
        InputError: appearance is not of single frames.
        VditrackError: the destination is taken. Nothing is left behind then.

    """
    frames = appearance.manifest.input.frames
    if frames != 1:
        raise InputError(
            f"{appearance.root} reads windows of {frames} frames, and appearance is that of single "
            "frames. Export it with `frames = 1` under [input] in its card."
        )
    with staged_folder(destination, replaceable=CONTENTS) as folder:
        _copy(motion, folder / MOTION, None)
        _copy(appearance, folder / APPEARANCE, None)
        sealed = _copy(points, folder, settings)
    return Bundle(destination, sealed.manifest)


def _copy(bundle: Bundle, folder: Path, settings: Propagation | None) -> Bundle:
    """Copy the files of a bundle itself, and seal them with what else is in the folder."""
    folder.mkdir(exist_ok=True)
    for name in bundle.manifest.files:
        if Path(name).parts[0] not in _PARTS:
            shutil.copyfile(bundle.root / name, folder / name)
    return seal_bundle(folder, msgspec.structs.replace(bundle.manifest, propagation=settings))


def combine(
    points: Annotated[Path, typer.Argument(help="Folder of the bundle that tracks points.")],
    motion: Annotated[Path, typer.Option(help="Bundle of motion features.", show_default=False)],
    appearance: Annotated[
        Path, typer.Option(help="Bundle of appearance features.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the new bundle.", show_default=False)
    ],
    motion_weight: Annotated[
        float, typer.Option(min=0, max=1, help="Of motion features, beside appearance.")
    ] = 0.4,
    temperature: Annotated[float, typer.Option(help="Of the softmax over products.")] = 0.2,
    top_k: Annotated[int, typer.Option(min=1, help="Cells that give a cell its label.")] = 10,
    radius: Annotated[
        float, typer.Option(help="How far these are at most, in cells of appearance.")
    ] = 15.0,
    context: Annotated[int, typer.Option(min=1, help="Last frames that are remembered.")] = 28,
) -> None:
    """Join bundles of points, motion and appearance to one that propagates masks.

    The settings are TED's for DAVIS where none are given.
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
    done = combine_bundles(
        load_bundle(points), load_bundle(motion), load_bundle(appearance), settings, output
    )
    typer.echo(f"{done.root} propagates masks ({done.manifest.name})")
