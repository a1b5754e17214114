"""Printing of text that may come from files: names and notes are never interpreted."""

from collections.abc import Iterable
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.segment import Segment

from vditrack.input_checks.text import clean_text, escape_json


def echo(text: str, *, err: bool = False) -> None:
    """Print a line, which may hold names from files, to stdout or stderr."""
    # A name with a line break could look like a message of its own.
    typer.echo(clean_text(text).replace("\n", "\N{REPLACEMENT CHARACTER}"), err=err)


def echo_json(value: object) -> None:
    """Print a value as JSON to stdout; values that JSON does not have are printed as text."""
    typer.echo(escape_json(msgspec.json.encode(value, enc_hook=str).decode()))


class PlainConsole(Console):
    """A console without markup and emoji codes, on which text cannot control the terminal."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        """Write to stdout or stderr, or nothing if quiet."""
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False)

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:  # noqa: ANN401
        """Yield segments with clean text; those that rich makes to move the cursor stay."""
        for text, style, control in super().render(*arguments, **options):
            yield Segment(text if control else clean_text(text), style, control)
