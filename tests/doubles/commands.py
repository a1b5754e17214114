"""Command-line verbs run in this process."""

from collections.abc import Callable

import typer
from typer.testing import CliRunner, Result


def run_command(verb: Callable[..., None], *arguments: object) -> Result:
    """Run one verb as the command line does; an error is the result's ``exception``."""
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, [*map(str, arguments)])
