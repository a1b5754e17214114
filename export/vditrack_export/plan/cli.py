"""The verb ``vditrack plan``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from vditrack.cli.console import PlainConsole
from vditrack.errors import InputError, VditrackError, install_command
from vditrack_export.card import load_card
from vditrack_export.plan.devices import all_devices, find_device, find_precision
from vditrack_export.plan.roofline import check_efficiency
from vditrack_export.plan.settings import require_plausible_sizes
from vditrack_export.plan.tables import print_devices, print_report

if TYPE_CHECKING:
    from vditrack_export.plan.report import Report

_HIGHEST_RATE = 10_000
"""Frames a second."""
_MOST_POINTS = 10_000_000


def plan(
    card: Annotated[
        str | None,
        typer.Argument(
            help="Name of a model card (tiny, wan2.1-t2v-1.3b), or the path of one (.toml).",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Name of a device; `list` prints all devices.", show_default=False),
    ] = None,
    rate: Annotated[float, typer.Option(help="Frame rate of the camera, in Hz.")] = 30,
    points: Annotated[int, typer.Option(min=1, help="Number of points tracked.")] = 64,
    efficiency: Annotated[
        float,
        typer.Option(help="Share of peak operations and bandwidth that is reached, from 0 to 1."),
    ] = 0.5,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the networks: fp16, bf16 or fp32. Default: that of the device.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Estimate what a model costs on a device, and which sizes hold a frame rate.

    The model's layers are run on shapes alone, without weights. This needs PyTorch (the extra
    `export`), and neither a GPU nor a checkpoint.
    """
    if device == "list":
        _show_devices(as_json)
        return
    if card is None or device is None:
        raise InputError("give a card and --device; `vditrack plan --device list` shows devices.")
    # Written so that NaN fails too.
    if not 0 < rate <= _HIGHEST_RATE:
        raise InputError(
            f"--rate {rate:g} is not a frame rate: give more than 0, at most {_HIGHEST_RATE}."
        )
    if points > _MOST_POINTS:
        raise InputError(f"--points {points} is too many: give at most {_MOST_POINTS}.")
    # Mistakes are reported before torch takes its seconds to load.
    wanted, target = load_card(card), find_device(device)
    require_plausible_sizes(wanted)
    numbers = find_precision(precision or target.default)
    check_efficiency(efficiency)
    try:
        from vditrack_export.plan.report import make_report
        from vditrack_export.plan.runs import Question
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"plan needs {error.name}, which is not installed. Run `{install_command('export')}`."
        ) from error
    question = Question(target, numbers, efficiency, points, rate)
    report = make_report(wanted, question)
    if as_json:
        typer.echo(json.dumps(_as_data(report, device)))
    else:
        print_report(PlainConsole(), report)


def _show_devices(as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(all_devices()).decode())
    else:
        print_devices(PlainConsole(), all_devices())


def _as_data(report: "Report", device: str) -> dict[str, object]:
    """Return the plan as plain data: operations, bytes and seconds, unrounded."""
    question = report.question
    return {
        "card": report.card,
        "device": device,
        "precision": question.precision,
        "efficiency": question.efficiency,
        "points": question.points,
        "rate": question.rate,
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "holding": [asdict(run) for run in report.holding],
        "candidates": [asdict(run) for run in report.candidates],
    }
