"""Print a plan, or the devices, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vditrack_export.plan.devices import Device
from vditrack_export.plan.export_command import ExportCommand
from vditrack_export.plan.settings import Setting

# The plan's own modules load torch, which the table of devices does not need.
if TYPE_CHECKING:
    from vditrack_export.plan.report import Report
    from vditrack_export.plan.runs import Plan

_CANDIDATES_SHOWN = 12


def print_report(console: Console, report: Report, command: ExportCommand) -> None:
    """Print what a bundle costs, its frame rates, and the sizes that hold the camera's rate."""
    question = report.question
    console.print(Text.assemble((report.card, "bold"), f" on {question.device.title}"))
    console.print(
        f"{_format_setting(report.bundle.setting)}: {report.tokens} tokens, "
        f"{_format_described(report.bundle)} described."
    )
    precision = question.precision
    console.print(
        f"Transformer in {precision.features}, encoder in {precision.encoder}, as written by:\n"
        f"  {command.format()}",
        soft_wrap=True,
    )
    console.print(
        f"Times are the roofline's at {question.efficiency:.0%} of peak operations and bandwidth, "
        "and were not measured.\n"
    )
    _print_engines(console, report)
    _print_memory(console, report)
    _print_rates(console, report)
    _print_latents(console, report)
    _print_pipeline(console, report)
    _print_candidates(console, report, command)


def print_devices(console: Console, devices: dict[str, Device]) -> None:
    """Print the known devices and the sources of their figures."""
    columns = ("name", "fp16", "bf16", "fp32", "GB/s", "GB", "link GB/s", "SM")
    table = _new_table("dense peak rates, TFLOPS", columns)
    for name, device in devices.items():
        rates = device.tflops
        figures = (rates.fp16, rates.bf16, rates.fp32, device.bandwidth, device.memory)
        link = "shared" if device.link is None else f"{device.link:g}"
        cells = ("-" if figure is None else f"{figure:g}" for figure in figures)
        table.add_row(name, *cells, link, device.compute_capability or "-")
    console.print(table)
    for name, device in devices.items():
        console.print(Text.assemble((name, "bold"), f": {device.title}. {device.source}"))


def _print_engines(console: Console, report: Report) -> None:
    plan = report.bundle
    columns = ("engine", "TFLOP", "ms", "copies ms", "weights", "active", "state", "crosses")
    table = _new_table(
        "a run of each engine; weights, activations, state on the device and what crosses to or "
        "from the host in GB",
        columns,
    )
    for name, engine in plan.engines.items():
        memory = (
            engine.weight_bytes,
            engine.activation_bytes,
            engine.state_bytes,
            engine.host_bytes,
        )
        table.add_row(
            name,
            _format_tera(engine.operations),
            _format_milliseconds(engine.seconds),
            _format_milliseconds(engine.copy_seconds),
            *map(_format_gigabytes, memory),
        )
    console.print(table)


def _print_memory(console: Console, report: Report) -> None:
    plan, device = report.bundle, report.question.device
    memory = plan.memory
    table = _new_table("memory", ("of", "device GB", "host GB"))
    rows = [
        ("weights of all engines", memory.weights, 0),
        ("activations, in a workspace that all engines share", memory.activations, 0),
        ("inputs and outputs of all engines; pinned", memory.buffers, memory.pinned),
        ("a stream: caches, latents, keys and values; frames", memory.state, memory.frames),
    ]
    if memory.loading:
        rows.append(("in place of all but the weights: the file being loaded", 0, memory.loading))
    for name, *counts in rows:
        table.add_row(name, *map(_format_gigabytes, counts))
    console.print(table)
    verdict = "It fits" if plan.fits else "It does not fit"
    needed, whole = _format_gigabytes(memory.needed), f"{device.memory:g}"
    if memory.shared:
        console.print(
            f"{verdict}: {needed} GB of {whole} GB, which host and device share; 80% count as "
            "usable."
        )
    else:
        console.print(
            f"{verdict}: {needed} GB of the device's {whole} GB, of which 80% count as usable. The "
            f"host needs {_format_gigabytes(memory.host)} GB."
        )
    if report.unfused_bytes > plan.engines["transformer"].activation_bytes:
        console.print(
            "Attention is taken as fused. Without any fusion, with tokens x tokens for each head "
            "stored and buffers assigned as ONNX Runtime does, all activations of the transformer "
            f"together need {_format_gigabytes(report.unfused_bytes)} GB."
        )
    console.print()


def _print_rates(console: Console, report: Report) -> None:
    plan, camera = report.bundle, report.question.rate
    frames = "frame" if plan.step_frames == 1 else f"{plan.step_frames} frames"
    console.print(
        f"Stream: {_format_milliseconds(plan.stream_seconds)} ms a frame, {plan.stream_rate:.3g} "
        f"frames a second: encoder and transformer run once for each {frames}, tracking for every "
        "frame."
    )
    if plan.stream_rate < camera:
        console.print(
            f"  `live` keeps up with the camera's {camera:g}: optical flow carries the points "
            "through the frames that the model does not describe."
        )
    frames = "frame" if plan.clip_frames == 1 else "frames"
    console.print(
        f"Clip: {_format_milliseconds(plan.clip_seconds)} ms for a window of {plan.clip_frames} "
        f"new {frames}, {plan.clip_rate:.3g} frames a second."
    )
    console.print()


def _print_latents(console: Console, report: Report) -> None:
    table = _new_table(
        "a new latent of a stream, in TFLOP; tracking is not counted",
        ("--encoder, --attention", "encoder", "transformer", "ms", "frames/s", "state GB"),
    )
    for cost in report.latents:
        table.add_row(
            cost.form + ", as planned" * cost.planned,
            _format_tera(cost.encoder_operations),
            _format_tera(cost.transformer_operations),
            _format_milliseconds(cost.seconds),
            f"{cost.rate:.3g}" + ("" if cost.fits else ", does not fit"),
            _format_gigabytes(cost.cache_bytes),
        )
    console.print(table)
    kinds = {cost.form.rpartition(", ")[2] for cost in report.latents}
    if "cached" in kinds:
        console.print(
            "With cached keys and values (cached), a model that was not trained so gives other "
            "descriptors: export compares its tracks.\n"
        )


def _print_pipeline(console: Console, report: Report) -> None:
    parts = ", ".join(f"{name} {_format_tera(count)}" for name, count in report.pipeline.items())
    whole, kept = sum(report.pipeline.values()), sum(report.kept.values())
    transformer = report.pipeline["transformer"] / report.kept["transformer"]
    console.print(
        f"One denoising step of the whole pipeline takes {_format_tera(whole)} TFLOP on this window"
        f" ({parts}): {whole / kept:.1f} times the {_format_tera(kept)} of what is exported, the "
        f"transformer alone {transformer:.1f} times.\n"
    )


def _print_candidates(console: Console, report: Report, command: ExportCommand) -> None:
    rate, holding = report.question.rate, report.holding
    if holding:
        title = f"streams that hold {rate:g} frames a second, largest first ({len(holding)} in all)"
    else:
        sizes = [plan.setting for plan in report.candidates]
        least = min(sizes, key=lambda size: size.height * size.width)
        title = (
            f"no stream of {least.width} x {least.height} or larger holds {rate:g} frames a second;"
            " the fastest are"
        )
    columns = ("picture", "frames", "a latent", "encoder", "ms a frame", "rate", "GB")
    table = _new_table(title, columns)
    shown = (holding or report.candidates)[:_CANDIDATES_SHOWN]
    for plan in shown:
        setting = plan.setting
        table.add_row(
            f"{setting.width} x {setting.height}",
            str(setting.frames),
            "a frame" if setting.temporal_stride == 1 else f"{setting.temporal_stride} frames",
            plan.encoder or "own",
            _format_milliseconds(plan.stream_seconds),
            f"{plan.stream_rate:.3g}",
            _format_gigabytes(plan.memory.needed) + ("" if plan.fits else ", too much"),
        )
    console.print(table)
    _print_windows(console, report)
    first = shown[0]
    newest = 1
    if first.described < first.setting.latent_frames:
        newest = first.described * first.setting.temporal_stride
    console.print(
        f"The newest latents alone are described. The first is exported by:\n"
        f"  {command.with_window(first.setting, newest, first.encoder).format()}",
        soft_wrap=True,
    )


def _print_windows(console: Console, report: Report) -> None:
    """Print the rates of other windows of the planned picture, for each encoder."""
    own = report.bundle.setting
    of_encoder: dict[str, list[Plan]] = {}
    for plan in report.candidates:
        size = (plan.setting.height, plan.setting.width, plan.setting.temporal_stride)
        if size == (own.height, own.width, own.temporal_stride):
            of_encoder.setdefault(plan.encoder or "own encoder", []).append(plan)
    for encoder, plans in of_encoder.items():
        rising = sorted(plans, key=lambda plan: plan.setting.frames)
        rates = ", ".join(f"{plan.setting.frames} frames {plan.stream_rate:.3g}" for plan in rising)
        console.print(
            f"Frames a second of {own.width} x {own.height} by its window, {encoder}: {rates}."
        )


def _format_setting(setting: Setting) -> str:
    stride = setting.temporal_stride
    latents = "a latent a frame" if stride == 1 else f"a latent for {stride} frames"
    return f"{setting.width} x {setting.height} x {setting.frames} frames, {latents}"


def _format_described(plan: Plan) -> str:
    if plan.described == plan.setting.latent_frames:
        return "all latents"
    return "the newest latent" if plan.described == 1 else f"the newest {plan.described} latents"


def _new_table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    return table


def _format_tera(operations: int) -> str:
    return _format_number(operations / 1e12)


def _format_gigabytes(count: int) -> str:
    return _format_number(count / 1e9)


def _format_milliseconds(seconds: float) -> str:
    return _format_number(1e3 * seconds)


def _format_number(value: float) -> str:
    """Format a number with three figures, or all of those before the point."""
    if value == 0:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.01 else f"{value:.2g}"
