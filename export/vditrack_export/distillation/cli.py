"""The verb ``vditrack distill``."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vditrack.bundle.distillation import read_distillation
from vditrack.cli.console import echo, echo_json
from vditrack.cli.progress import add_progress_bar, progress_bars
from vditrack.errors import VditrackError, install_command
from vditrack_export.card import load_card
from vditrack_export.card_changes import change_card
from vditrack_export.command_options import SizeOption

_CARD = "tiny"
"""The card of the family of students."""


def distill(
    teacher: Annotated[
        Path,
        typer.Argument(
            help="Folder of a bundle of any family, or the weights of ALIKE-L (.safetensors).",
            show_default=False,
        ),
    ],
    videos: Annotated[
        list[str],
        typer.Option(
            "--videos",
            help="Footage to teach on: a video, a folder of images, a rosbag2, a LeRobot data set, "
            "a folder that has some, a pattern or a manifest. May be repeated.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to write the bundle to.", show_default=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            help="Folder of the run: cached clips, checkpoint, log and curves. An interrupted run "
            "continues from it. Default: OUTPUT.run.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="What a frame may cost, as DEVICE@HZ (orin-nx@30) or in millions of operations "
            "(800); the largest student within it is taught. Default: the size of the bundled "
            "model.",
            show_default=False,
        ),
    ] = None,
    size: SizeOption = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Number of training steps, of 8 clips each.")
    ] = 6000,
    clips: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of clips of four frames that are taken of the footage. Default: two for "
            "each second, at least 64 and at most 4000.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, clips and noise.")] = 0,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Write the bundle even if it falls short of its teacher."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what the bundle says of its origin as JSON.")
    ] = False,
) -> None:
    """Teach a model of a robot's size to match as a large one does, on your own footage."""
    # Mistakes are reported before torch is imported, which takes seconds.
    card = change_card(load_card(_CARD), size=size)
    try:
        from vditrack_export.distillation.run import Request, distil
        from vditrack_export.distillation.sizes import (
            choose_shape,
            count_operations,
            make_card,
            parse_budget,
        )
        from vditrack_export.distillation.teachers import open_teacher
        from vditrack_export.tiny.model import BUNDLED
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"distill needs {error.name}, which is not installed. "
            f"Run `{install_command('train', 'annotate', 'eval', 'cpu')}`."
        ) from error
    shape = BUNDLED if budget is None else choose_shape(card, parse_budget(budget))
    operations = count_operations(make_card(card, shape)) / 1e6
    folder = run or output.with_name(f"{output.name}.run")
    request = Request(tuple(videos), output, folder, card, shape, steps, clips, seed, accept)
    if not as_json:
        echo(f"student: {shape.widths[0]} channels wide, {operations:.0f} MFLOP a frame")
    with progress_bars(quiet=as_json) as bars:
        progress, report = partial(add_progress_bar, bars), partial(echo, err=as_json)
        bundle = distil(request, open_teacher(teacher), progress, report)
    origin = read_distillation(bundle.root)
    assert origin is not None
    if as_json:
        echo_json(origin)
        return
    if origin.agreement.accepted:
        echo("warning: it falls short of its teacher, which was accepted.", err=True)
    echo(f"written: {bundle.root}; log and curves are in {folder}")
