"""Verb ``bench``: measure the speed of the live stream."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from vditrack.atomic_files import staged_file
from vditrack.bench.compare import Comparison, compare_results
from vditrack.bench.machine import format_load_warning, read_load_average, read_machine
from vditrack.bench.measure import measure
from vditrack.bench.result import BenchResult, Settings, read_result
from vditrack.bench.tables import print_comparison, print_result
from vditrack.cli.console import PlainConsole, echo, echo_json
from vditrack.cli.options import (
    BackendOption,
    BundleArgument,
    DeviceOption,
    HostCodeOption,
    Json,
    SignatureOption,
    VerifyFilesOption,
    choose_backend,
    parse_size,
)
from vditrack.errors import InputError
from vditrack.tracker import Tracker


def bench(
    bundle: BundleArgument = None,
    rate: Annotated[
        float, typer.Option(help="Rate of the camera, in frames per second, up to 1000.")
    ] = 30.0,
    duration: Annotated[
        float,
        typer.Option(
            help="Length of the run at that rate, in seconds; the search for the highest rate "
            "takes as long again."
        ),
    ] = 20.0,
    points: Annotated[int, typer.Option(help="Number of points to track, up to 10000.")] = 64,
    size: Annotated[
        str, typer.Option(help="Size of the frames, WIDTHxHEIGHT in pixels.")
    ] = "640x480",
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    verify_files: VerifyFilesOption = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compare two results A.json B.json instead of measuring."),
    ] = None,
    as_json: Json = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="JSON file that the result is written to."),
    ] = None,
) -> None:
    """Measure the live stream: time by stage, latency, dropped frames, highest rate, memory."""
    if compare is None:
        settings = _make_settings(rate, duration, points, size)
        chosen = choose_backend(backend, device)

        def load() -> Tracker:
            return Tracker.load(
                bundle,
                chosen,
                require_signature=require_signature,
                verify_files=verify_files,
                allow_host_code=allow_host_code,
            )

        _run_and_save(lambda: _measure(load, settings, as_json=as_json), output)
    elif bundle is not None:
        raise InputError("--compare takes no bundle: it reads two results and measures nothing.")
    else:
        _run_and_save(lambda: _compare(*compare, as_json=as_json), output)


def _make_settings(rate: float, duration: float, points: int, size: str) -> Settings:
    # Written so that NaN fails too.
    if not 0 < rate <= 1000:
        raise InputError(f"--rate {rate:g} is not in (0, 1000] frames per second.")
    if not 1 <= duration < math.inf:
        raise InputError(f"--duration {duration:g} is not a number of seconds, 1 or more.")
    if not 1 <= points <= 10_000:
        raise InputError(f"--points {points} is not in 1 to 10000.")
    width, height = _parse_camera_size(size)
    return Settings(rate=rate, duration=duration, points=points, width=width, height=height)


def _parse_camera_size(text: str) -> tuple[int, int]:
    """Return the width and height of a text ``WIDTHxHEIGHT``."""
    width, height = parse_size(text)
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise InputError(f"--size {text}: both sides must be in 16 to 8192 pixels.")
    return width, height


def _measure(load: Callable[[], Tracker], settings: Settings, *, as_json: bool) -> BenchResult:
    notes = PlainConsole(stderr=True, quiet=as_json)

    # Lines between the steps: a progress bar would take time from what is measured.
    def report(step: str, left: float) -> None:
        notes.print(f"{step}  (about {left:.0f} s left)")

    warning = format_load_warning(read_machine(), read_load_average())
    if warning:
        echo(f"warning: {warning}", err=True)
    result = measure(load, settings, report)
    if as_json:
        echo_json(result)
    else:
        print_result(PlainConsole(), result)
    return result


def _compare(a: Path, b: Path, *, as_json: bool) -> Comparison:
    comparison = compare_results(read_result(a), read_result(b))
    if as_json:
        echo_json(comparison)
    else:
        print_comparison(PlainConsole(), comparison)
    return comparison


def _run_and_save(run: Callable[[], BenchResult | Comparison], output: Path | None) -> None:
    """Call ``run`` and write its result; refuse a file that cannot be written before the run."""
    if output is None:
        run()
        return
    with staged_file(output) as path:
        content = msgspec.json.format(msgspec.json.encode(run()), indent=2)
        path.write_bytes(content + b"\n")
