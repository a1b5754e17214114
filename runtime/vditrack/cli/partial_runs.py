"""Runs over long recordings: what is written as it comes, and how an interrupted run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from vditrack.cli.console import echo
from vditrack.errors import InputError
from vditrack.io.frame_source import FrameSource
from vditrack.io.run_store import NOT_BEGUN, describe_place, find_store, remove_store
from vditrack.tracker import Tracker

PARTIAL, PARTIAL_MASKS = "partial", "partial-masks"
"""Names of folders of a run that is not complete, in the folder of the results; the second is that
of the masks of ``track``."""
CHECKPOINT_FRAMES = 256
"""Frames between checkpoints. A shorter recording has none."""

ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an interrupted run of the same command. Without one, start from the "
        "beginning.",
    ),
]


def describe_origin(
    verb: str,
    tracker: Tracker,
    source: FrameSource,
    settings: Any,  # noqa: ANN401
    given: dict[str, str],
) -> dict[str, str]:
    """Return what the results of a run depend on: a description or a digest of each, by name.

    Args:
        verb: of the command line.
        tracker: the tracker.
        source: the recording.
        settings: that the results depend on.
        given: what the user gave.

    """
    bundle = tracker.bundle
    manifests = [bundle.manifest, *(part.manifest for part in bundle.parts.values())]
    return {
        "verb": verb,
        "recording": source.digest,
        **given,
        "bundle": sha256(msgspec.json.encode(manifests)).hexdigest(),
        "setting of the tracker": sha256(msgspec.json.encode(settings)).hexdigest(),
        "backend": tracker.backend.name,
        "version of vditrack": metadata.version("vditrack"),
    }


@contextmanager
def report_partial_run(folder: Path, what: str, *, resume: bool) -> Iterator[None]:
    """Remove the store of a run after the block; if the block raises, say how to continue instead.

    A run that did not come to its first checkpoint leaves nothing.

    Args:
        folder: of the store, in a folder that this process has locked.
        what: is in the store, for the message.
        resume: whether the user asked to continue an interrupted run.

    Raises:
        InputError: There is an interrupted run, and it is not to be continued; or something else is
            in its place.

    """
    before = describe_place(folder)
    if before == NOT_BEGUN:
        remove_store(folder)
    elif before is not None and not resume:
        raise InputError(
            f"{folder} is an interrupted run, {before}. Add --resume to continue it, or delete the "
            "folder to start again."
        )
    complete = False
    try:
        yield
        complete = True
    finally:
        if find_store(folder):
            if complete or describe_place(folder) == NOT_BEGUN:
                remove_store(folder)
            elif describe_place(folder) != before:
                echo(
                    f"note: {folder} has the {what} of this run so far. Run the same command with "
                    "--resume to continue it.",
                    err=True,
                )
