"""Results that are drawn after the others: a failure costs none of the others."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import cv2
import typer

from vditrack.atomic_files import ResultsFolder
from vditrack.cli.console import echo
from vditrack.errors import VditrackError

INCOMPLETE = 3
"""Exit code of a run whose tracks or masks are complete, but not what was to be drawn of them."""

_DRAWING_ERRORS = (VditrackError, OSError, MemoryError, ValueError, cv2.error)


Writer = Callable[[Path], None]
"""Writes the file at a path."""


def write_drawn_results(
    folder: ResultsFolder,
    writers: Mapping[str, Writer],
    recording: tuple[Path, Writer] | None = None,
) -> dict[str, str]:
    """Write results, and return why some were not written, by name.

    Args:
        folder: The folder of the results.
        writers: Functions that write the results in the folder, by name.
        recording: A recording outside of it and the function that writes it, or None.

    """
    staged: dict[str, tuple[AbstractContextManager[Path], Writer]]
    staged = {name: (folder.file(name), write) for name, write in writers.items()}
    if recording is not None:
        path, write = recording
        staged[str(path)] = nullcontext(path), write
    found = {name: _try_to_write(name, *how) for name, how in staged.items()}
    return {name: reason for name, reason in found.items() if reason is not None}


def _try_to_write(name: str, staged: AbstractContextManager[Path], write: Writer) -> str | None:
    """Write a result to the path that a context gives; return why it failed, or None."""
    scratch = Path(name)
    try:
        with staged as scratch:
            write(scratch)
    except _DRAWING_ERRORS as error:
        reason = " ".join(str(error).split()).replace(str(scratch), name)
        return reason or type(error).__name__
    return None


def exit_if_incomplete(failures: Mapping[str, str]) -> None:
    """Report results that were not written, and exit with `INCOMPLETE` if there are any."""
    for name, reason in failures.items():
        echo(f"vditrack: {name} was not written: {reason}", err=True)
    if failures:
        raise typer.Exit(INCOMPLETE)
