"""Results that are drawn after the others: a failure costs none of the others."""

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import typer

from vditrack.atomic_files import ResultsFolder
from vditrack.cli.console import clean_text
from vditrack.errors import VditrackError

INCOMPLETE = 3
"""Exit code of a run whose tracks or masks are complete, but not what was to be drawn of them."""

_DRAWING_ERRORS = (VditrackError, OSError, MemoryError, ValueError, cv2.error)


def write_drawn_results(
    folder: ResultsFolder, writers: Mapping[str, Callable[[Path], None]]
) -> dict[str, str]:
    """Write results by name, and return why some were not written.

    Args:
        folder: The folder of the results.
        writers: Functions that write the file at a path, by the name of the result.

    """
    failures: dict[str, str] = {}
    for name, write in writers.items():
        scratch = Path(name)
        try:
            with folder.file(name) as scratch:
                write(scratch)
        except _DRAWING_ERRORS as error:
            reason = " ".join(str(error).split()).replace(str(scratch), name)
            failures[name] = reason or type(error).__name__
    return failures


def exit_if_incomplete(failures: Mapping[str, str]) -> None:
    """Report results that were not written, and exit with `INCOMPLETE` if there are any."""
    for name, reason in failures.items():
        typer.echo(f"vditrack: {name} was not written: {clean_text(reason)}", err=True)
    if failures:
        raise typer.Exit(INCOMPLETE)
