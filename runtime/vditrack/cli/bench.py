"""The verb ``vditrack bench``."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from vditrack.atomic_files import staged_file
from vditrack.bench.compare import Comparison
from vditrack.bench.compare import compare as compared
from vditrack.bench.machine import busy, load_average, read_machine
from vditrack.bench.measure import measure
from vditrack.bench.result import BenchResult, Settings, read_result
from vditrack.bench.tables import print_comparison, print_result
from vditrack.errors import InputError
from vditrack.inference.selection import BackendName


def bench(
    bundle: Annotated[
        Path | None, typer.Argument(help="Folder of a bundle; the bundled model by default.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Frames a second of the camera.")] = 30.0,
    duration: Annotated[
        float, typer.Option(help="Seconds at that rate; as many again look for the highest.")
    ] = 20.0,
    points: Annotated[int, typer.Option(help="Points that are tracked.")] = 64,
    size: Annotated[str, typer.Option(help="Of the frames, as WIDTHxHEIGHT.")] = "640x480",
    backend: Annotated[
        BackendName, typer.Option(help="What runs the model; auto alone falls back.")
    ] = "auto",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two results A.json B.json to compare; measures nothing."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the result, as JSON.")
    ] = None,
) -> None:
    """Measure the live stream's speed: stages, latency, drops, highest rate, memory."""
    if compare is None:
        settings = _settings(rate, duration, points, size)
        _saved(lambda: _measured(bundle, backend, settings, as_json=as_json), output)
    elif bundle is not None:
        raise InputError("--compare takes no bundle: it reads two results, and measures nothing.")
    else:
        _saved(lambda: _compared(*compare, as_json=as_json), output)


def _settings(rate: float, duration: float, points: int, size: str) -> Settings:
    # Written so that NaN fails too.
    if not 0 < rate <= 1000:
        raise InputError(f"--rate {rate:g} is not in (0, 1000] frames a second.")
    if not 1 <= duration < math.inf:
        raise InputError(f"--duration {duration:g} is not a number of seconds, 1 or more.")
    if not 1 <= points <= 10_000:
        raise InputError(f"--points {points} is not in 1 to 10000.")
    width, height = _size(size)
    return Settings(rate=rate, duration=duration, points=points, width=width, height=height)


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"--size {text} is not WIDTHxHEIGHT, as in 640x480.") from error
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise InputError(f"--size {text}: both sides must be in 16 to 8192 pixels.")
    return width, height


def _measured(
    bundle: Path | None, backend: BackendName, settings: Settings, *, as_json: bool
) -> BenchResult:
    notes = Console(stderr=True, quiet=as_json)

    # Lines between the steps: a bar that moves would take its time from what is measured.
    def report(step: str, left: float) -> None:
        notes.print(f"{step}  [dim](about {left:.0f} s left)[/dim]")

    _warn(busy(read_machine(), load_average()))
    result = measure(bundle, settings, report, backend=backend)
    if as_json:
        typer.echo(msgspec.json.encode(result).decode())
    else:
        print_result(Console(), result)
    return result


def _compared(a: Path, b: Path, *, as_json: bool) -> Comparison:
    comparison = compared(read_result(a), read_result(b))
    if as_json:
        typer.echo(msgspec.json.encode(comparison).decode())
    else:
        print_comparison(Console(), comparison)
    return comparison


def _saved(run: Callable[[], BenchResult | Comparison], output: Path | None) -> None:
    """Run, and write the result; a file that cannot be written is refused before the minute."""
    if output is None:
        run()
        return
    if output.is_dir():
        raise InputError(f"{output} is a folder. Choose the name of a file with -o.")
    with staged_file(output) as path:
        content = msgspec.json.format(msgspec.json.encode(run()), indent=2)
        path.write_bytes(content + b"\n")


def _warn(warning: str | None) -> None:
    if warning:
        typer.echo(f"warning: {warning}", err=True)
