"""The command line ``vditrack VERB``: puts the verbs together and reports errors."""

from importlib import metadata
from typing import Annotated, NoReturn

import typer

from vditrack.cli.annotate import annotate
from vditrack.cli.bench import bench
from vditrack.cli.build import build
from vditrack.cli.combine import combine
from vditrack.cli.console import echo
from vditrack.cli.demo import demo
from vditrack.cli.eval import evaluate
from vditrack.cli.inspect import inspect
from vditrack.cli.propagate import propagate
from vditrack.cli.sign import sign
from vditrack.cli.stop_signals import StoppedError, exit_on_signals
from vditrack.cli.track import track
from vditrack.cli.view import view
from vditrack.doctor.cli import main as run_doctor
from vditrack.errors import VditrackError

_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}
_MEMORY_REMEDY = (
    "Take a shorter or smaller part of the input, fewer points, or a machine with more memory."
)


def main() -> None:
    """Run the command line. An error of the user is one line on stderr, with exit code 2."""
    try:
        with exit_on_signals():
            build_app()()
    except VditrackError as error:
        _exit_with_error(str(error))
    except OSError as error:
        _exit_with_error(f"{error.filename or 'writing'}: {error.strerror or error}.")
    except MemoryError as error:
        # NumPy says how much it asked for; Python's own error says nothing.
        _exit_with_error(f"the memory is too small. {error} {_MEMORY_REMEDY}")
    except StoppedError as stopped:
        echo(f"vditrack: stopped by {stopped.name}.", err=True)
        raise


def build_app() -> typer.Typer:
    """Return the application with the verbs of this package and of installed plug-ins."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    app.callback(invoke_without_command=True)(print_version)
    app.command("eval")(evaluate)
    for verb in (propagate, combine, bench, build, demo, track, annotate, view, inspect, sign):
        app.command()(verb)
    app.command(add_help_option=False, context_settings=_ANY_ARGUMENTS)(doctor)
    for entry in metadata.entry_points(group="vditrack.commands"):
        _add_plugin(app, entry)
    return app


def print_version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Track any point in video with a pretrained video diffusion transformer."""
    if version:
        echo(metadata.version("vditrack"))
        raise typer.Exit


def doctor(context: typer.Context) -> None:
    """Check what works on this machine, and say how to fix the rest."""
    # The doctor parses its own options, since it must also run where typer does not load.
    raise typer.Exit(run_doctor(context.args))


def _exit_with_error(message: str) -> NoReturn:
    echo(f"vditrack: {' '.join(message.split())}", err=True)
    raise SystemExit(2)


def _add_plugin(app: typer.Typer, entry: metadata.EntryPoint) -> None:
    """Register a plug-in verb. If its import fails, register a stub that reports why."""
    try:
        app.command(entry.name)(entry.load())
    # An import of another package can raise anything.
    except Exception as error:
        reason = f"the verb {entry.name} does not load ({entry.value}): {error}. Reinstall it."

        @app.command(entry.name, context_settings=_ANY_ARGUMENTS)
        def report_failure() -> None:
            """Not available: its package does not load."""
            raise VditrackError(reason)
