"""The command line: ``vditrack VERB``."""

from importlib import metadata
from typing import Annotated, NoReturn

import typer

from vditrack.cli.bench import bench
from vditrack.cli.build import build
from vditrack.cli.combine import combine
from vditrack.cli.eval import evaluate
from vditrack.cli.inspect import inspect
from vditrack.cli.propagate import propagate
from vditrack.cli.track import demo, track
from vditrack.doctor.cli import main as examine
from vditrack.errors import VditrackError

app = typer.Typer(
    help="Track any point in video with a pretrained video diffusion transformer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


app.command("eval")(evaluate)
app.command()(propagate)
app.command()(combine)
app.command()(bench)
app.command()(build)
app.command()(demo)
app.command()(track)
app.command()(inspect)


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit code 2."""
    for verb in metadata.entry_points(group="vditrack.commands"):
        _add_verb(verb)
    try:
        app()
    except VditrackError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"{error.filename or 'writing'}: {error.strerror or error}.")


def _refuse(message: str) -> NoReturn:
    typer.echo(f"vditrack: {' '.join(message.split())}", err=True)
    raise SystemExit(2)


def _add_verb(entry: metadata.EntryPoint) -> None:
    """Add another package's verb; where it does not load, one that says so and harms no other."""
    try:
        app.command(entry.name)(entry.load())
    # Whatever a foreign module does wrong when it is imported.
    except Exception as error:
        reason = f"the verb {entry.name} does not load ({entry.value}): {error}. Reinstall it."
        lenient = {"allow_extra_args": True, "ignore_unknown_options": True}

        @app.command(entry.name, context_settings=lenient)
        def broken() -> None:
            """Cannot be used here: it does not load."""
            raise VditrackError(reason)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Track any point in video with a pretrained video diffusion transformer."""
    if version:
        typer.echo(metadata.version("vditrack"))
        raise typer.Exit


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def doctor(context: typer.Context) -> None:
    """Find what works on this machine, what does not, and what mends it."""
    # It reads its own options, since it must also run where this module does not load.
    raise typer.Exit(examine(context.args))
