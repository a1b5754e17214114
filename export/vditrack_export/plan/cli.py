"""The verb ``vditrack plan``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from vditrack.cli.console import PlainConsole, echo, echo_json
from vditrack.errors import InputError, VditrackError, install_command
from vditrack_export.card import load_card
from vditrack_export.card_changes import change_card, replace_encoder
from vditrack_export.command_options import (
    AttentionOption,
    BlockOption,
    DescribedOption,
    EncoderPrecisionOption,
    FramesOption,
    HeadsOption,
    SizeOption,
    TemporalStrideOption,
)
from vditrack_export.plan.devices import Device, all_devices, find_device, read_devices
from vditrack_export.plan.export_command import ExportCommand
from vditrack_export.plan.roofline import check_efficiency
from vditrack_export.plan.settings import require_plausible_sizes
from vditrack_export.plan.tables import print_devices, print_report

if TYPE_CHECKING:
    from vditrack_export.plan.report import Report
    from vditrack_export.plan.runs import Plan

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
        typer.Option(
            help="Name of a device; `list` prints all devices. Default: the only one of "
            "--device-file.",
            show_default=False,
        ),
    ] = None,
    device_file: Annotated[
        Path | None,
        typer.Option(
            "--device-file",
            help="TOML file with devices of your own (docs/speed.md).",
            show_default=False,
        ),
    ] = None,
    size: SizeOption = None,
    frames: FramesOption = None,
    described: DescribedOption = None,
    temporal_stride: TemporalStrideOption = None,
    attention: AttentionOption = None,
    encoder: Annotated[
        Literal["taehv", "taesd"] | None,
        typer.Option(
            help="Tiny encoder in place of the checkpoint's own; default: the own one is planned, "
            "and sizes are listed for both.",
            show_default=False,
        ),
    ] = None,
    block: BlockOption = None,
    heads: HeadsOption = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        typer.Option(
            help="Precision as for `export`; default: that of the device.", show_default=False
        ),
    ] = None,
    encoder_precision: EncoderPrecisionOption = None,
    rate: Annotated[float, typer.Option(help="Frame rate of the camera, in Hz.")] = 30,
    points: Annotated[int, typer.Option(min=1, help="Number of points tracked.")] = 64,
    efficiency: Annotated[
        float,
        typer.Option(help="Share of peak operations and bandwidth that is reached, from 0 to 1."),
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Estimate what a bundle costs on a device, and which sizes hold a frame rate.

    Options that `export` has too mean the same. The model's layers are run on shapes alone, without
    weights. This needs PyTorch (the extra `export`), and neither a GPU nor a checkpoint. What
    `export --masks` adds is not counted.
    """
    if device == "list":
        _show_devices(device_file, as_json)
        return
    target = _choose_device(device, device_file)
    if card is None or target is None:
        raise InputError("give a card and --device; `vditrack plan --device list` shows devices.")
    _check_numbers(rate, points)
    # Mistakes are reported before torch takes its seconds to load.
    wanted = change_card(
        load_card(card),
        size=size,
        frames=frames,
        described=described,
        temporal_stride=temporal_stride,
        attention=attention,
        block=block,
        heads=heads,
    )
    wanted = replace_encoder(wanted, encoder)
    require_plausible_sizes(wanted)
    check_efficiency(efficiency)
    try:
        from vditrack_export.pipeline.precision import choose_precision
        from vditrack_export.plan.report import make_report
        from vditrack_export.plan.runs import Question
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"plan needs {error.name}, which is not installed. Run `{install_command('export')}`."
        ) from error
    features = precision or target.default
    numbers = choose_precision(features, encoder_precision)
    report = make_report(wanted, Question(target, numbers, efficiency, points, rate))
    command = ExportCommand(
        card,
        size,
        frames,
        described,
        temporal_stride,
        attention,
        wanted.tiny_encoder,
        block,
        heads,
        features,
        encoder_precision,
    )
    if as_json:
        echo(json.dumps({"export": command.format(), **_as_data(report)}))
    else:
        print_report(PlainConsole(), report, command)


def _check_numbers(rate: float, points: int) -> None:
    # Written so that NaN fails too.
    if not 0 < rate <= _HIGHEST_RATE:
        raise InputError(
            f"--rate {rate:g} is not a frame rate: give more than 0, at most {_HIGHEST_RATE}."
        )
    if points > _MOST_POINTS:
        raise InputError(f"--points {points} is too many: give at most {_MOST_POINTS}.")


def _choose_device(name: str | None, file: Path | None) -> Device | None:
    """Return the device that is asked for: the only one of a file if none is named."""
    if name is not None:
        return find_device(name, file)
    if file is None:
        return None
    own = read_devices(file)
    if len(own) > 1:
        raise InputError(f"{file} has several devices. Give --device: {', '.join(own)}.")
    return next(iter(own.values()))


def _show_devices(file: Path | None, as_json: bool) -> None:
    if as_json:
        echo_json(all_devices(file))
    else:
        print_devices(PlainConsole(), all_devices(file))


def _as_data(report: "Report") -> dict[str, object]:
    """Return the plan as plain data: operations, bytes and seconds, unrounded."""
    question = report.question
    return {
        "card": report.card,
        "device": msgspec.to_builtins(question.device),
        "precision": msgspec.to_builtins(question.precision),
        "efficiency": question.efficiency,
        "points": question.points,
        "rate": question.rate,
        "tokens": report.tokens,
        "bundle": _plan_data(report.bundle),
        "unfused_activation_bytes": report.unfused_bytes,
        "pipeline_operations": report.pipeline,
        "kept_operations": report.kept,
        "latents": [asdict(cost) for cost in report.latents],
        "holding": [_plan_data(plan) for plan in report.holding],
        "candidates": [_plan_data(plan) for plan in report.candidates],
    }


def _plan_data(plan: "Plan") -> dict[str, object]:
    memory = plan.memory
    sums = {"device": memory.device, "host": memory.host, "needed": memory.needed}
    return {
        **asdict(plan),
        "memory": {**asdict(memory), **sums},
        "stream_seconds": plan.stream_seconds,
        "stream_rate": plan.stream_rate,
        "clip_rate": plan.clip_rate,
        "latent_seconds": plan.latent_seconds,
    }
