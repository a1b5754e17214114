"""Options of ``annotate`` for LeRobot data sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vditrack.annotation.folders import Folder, LocalFolder
from vditrack.annotation.job import Job
from vditrack.annotation.lerobot_copy import CopyRequest, write_copy
from vditrack.annotation.recordings import Source
from vditrack.cli.console import echo
from vditrack.errors import InputError

EpisodesOption = Annotated[
    str | None,
    typer.Option(
        metavar="LIST", help="Episodes of LeRobot data sets, such as 0,3,5-9. Default: all."
    ),
]
CameraOption = Annotated[
    list[str] | None,
    typer.Option(help="Camera of LeRobot data sets, by its key. Repeatable. Default: all."),
]
LerobotOption = Annotated[
    Path | None,
    typer.Option(
        help="Also write a copy of the LeRobot data set, with the tracks as features of its "
        "frames, to this folder."
    ),
]
FillMissingOption = Annotated[
    bool,
    typer.Option(
        "--fill-missing",
        help="Write the copy of --lerobot also if episodes failed or are left out, with missing "
        "points.",
    ),
]


def require_disk(output: Folder, sources: Sequence[Source]) -> Path:
    """Return the folder of the results, which has to be on a disk with the data set.

    Raises:
        InputError: One of them is in a storage.

    """
    if not isinstance(output, LocalFolder) or any(one.remote is not None for one in sources):
        raise InputError(
            "--lerobot writes a copy of a data set on a disk, with results on a disk. Give a path "
            "for each."
        )
    return output.path


def write_planned_copy(copy: CopyRequest, job: Job, *, failed: bool, as_json: bool) -> None:
    """Write the copy of a data set, unless recordings failed and are wanted."""
    if failed and not copy.fill_missing:
        echo(
            f"vditrack: {copy.destination} is not written, because recordings failed. Give "
            "--fill-missing to write them with missing points.",
            err=True,
        )
        return
    write_copy(copy, require_disk(job.output, ()), job.settings)
    if not as_json:
        echo(f"lerobot: {copy.destination}")
