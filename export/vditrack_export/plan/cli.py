"""The verb ``vditrack plan``."""

import json
from dataclasses import asdict
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from vditrack.errors import InputError
from vditrack_export.card import load_card
from vditrack_export.plan.devices import all_devices, find_device, find_precision
from vditrack_export.plan.report import Report, make_report
from vditrack_export.plan.runs import Question
from vditrack_export.plan.tables import print_devices, print_report


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
        typer.Option(help="Name of a device; `list` prints all.", show_default=False),
    ] = None,
    rate: Annotated[float, typer.Option(help="Frames a second that the camera gives.")] = 30,
    points: Annotated[int, typer.Option(min=1, help="Points tracked.")] = 64,
    efficiency: Annotated[
        float, typer.Option(help="Share of peak operations and bandwidth that is reached.")
    ] = 0.5,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the networks: fp16, bf16 or fp32; the device's default else.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Tell what a model costs on a device, and which sizes hold a frame rate: from shapes alone."""
    if device == "list":
        _tell_devices(as_json)
        return
    if card is None or device is None:
        raise InputError("give a card and --device; `vditrack plan --device list` shows devices.")
    # Written so that NaN fails too.
    if not rate > 0:
        raise InputError(f"--rate {rate:g} is no frame rate: give more than 0.")
    wanted, target = load_card(card), find_device(device)
    question = Question(
        device=target,
        precision=find_precision(precision or target.default),
        efficiency=efficiency,
        points=points,
        rate=rate,
    )
    report = make_report(wanted, question)
    if as_json:
        typer.echo(json.dumps(_as_data(report, device)))
    else:
        print_report(Console(), report)


def _tell_devices(as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(all_devices()).decode())
    else:
        print_devices(Console(), all_devices())


def _as_data(report: Report, device: str) -> dict[str, object]:
    """Operations, bytes and seconds, unrounded."""
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
