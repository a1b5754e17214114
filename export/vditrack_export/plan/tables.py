"""Print a plan, or the devices, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vditrack_export.plan.devices import Device
from vditrack_export.plan.settings import Setting

# The plan's own modules load torch, which the table of devices does not need.
if TYPE_CHECKING:
    from vditrack_export.plan.report import Comparison, Report
    from vditrack_export.plan.runs import Part, Run

_PARTS = ("text encoder", "encoder", "transformer", "matching", "decoder")
_CANDIDATES_SHOWN = 12


def print_report(console: Console, report: Report) -> None:
    """Print operations, memory and time, then the sizes that hold the rate."""
    question = report.question
    console.print(
        Text(report.card, "bold"),
        f"on {question.device.title}, {question.precision}, at "
        f"{question.efficiency:.0%} of peak operations and bandwidth, {question.points} points",
    )
    for comparison in report.comparisons:
        _print_comparison(console, comparison, report)
    _print_candidates(console, report)
    console.print(
        "Operations are twice the multiply-adds. Moved bytes count elementwise work as fused. The "
        "pipeline is one denoising step with its guidance passes. Times are the roofline's, as if "
        "matching ran on the device too; it runs on the host's CPU."
    )


def print_devices(console: Console, devices: dict[str, Device]) -> None:
    """Print the known devices and the sources of their figures."""
    table = _new_table(
        "dense peak rates, TFLOPS",
        ("name", "device", "bf16", "fp32", "fp8", "int8", "GB/s", "GB", "SM"),
    )
    for name, device in devices.items():
        rates = device.tflops
        figures = (rates.bf16, rates.fp32, rates.fp8, rates.int8, device.bandwidth, device.memory)
        cells = ("-" if figure is None else f"{figure:g}" for figure in figures)
        table.add_row(name, device.title, *cells, device.compute_capability or "-")
    console.print(table)
    for name, device in devices.items():
        console.print(Text.assemble((name, "bold"), f": {device.source}"))


def _print_comparison(console: Console, comparison: Comparison, report: Report) -> None:
    kept, whole = comparison.kept.parts, comparison.pipeline
    table = _new_table(
        f"{_format_setting(comparison.setting)}: {comparison.tokens} tokens",
        ("part", "pipeline TFLOP", "kept TFLOP", "moved GB", "weights GB", "peak GB", "ms"),
    )
    for name in _PARTS:
        if name in kept or name in whole:
            table.add_row(name, *_format_parts(kept.get(name), whole.get(name)))
    table.add_section()
    table.add_row("all", *_format_parts(comparison.kept.total, comparison.pipeline_total))
    console.print(table)
    console.print(
        f"The whole pipeline takes {comparison.ratio:.1f} times the operations of what is kept, "
        f"the transformer alone {comparison.transformer_ratio:.1f} times."
    )
    usable = "fits" if comparison.kept.fits else "does not fit"
    fused, decomposed = comparison.kept.memory_bytes, comparison.decomposed_memory_bytes
    console.print(
        f"Memory {_format_gigabytes(fused)} GB, {usable}; with attention that keeps tokens x "
        f"tokens {_format_gigabytes(decomposed)} GB."
    )
    _print_rate(console, comparison.kept)
    if comparison.stream.parts != comparison.kept.parts:
        _print_rate(console, comparison.stream)
    console.print()


def _print_rate(console: Console, run: Run) -> None:
    name = {
        "card": "Windows as the card says",
        "windows": "Windows that overlap by a frame",
        "stream": "A window for every new latent",
    }[run.mode]
    frames = "frame" if run.new_frames == 1 else "frames"
    console.print(
        f"{name}: {_format_milliseconds(run.seconds)} ms for {run.new_frames} new {frames}, "
        f"{run.rate:.3g} frames a second."
    )


def _print_candidates(console: Console, report: Report) -> None:
    rate, holding = report.question.rate, report.holding
    if holding:
        title = f"hold {rate:g} frames a second, largest first ({len(holding)} in all)"
    else:
        title = f"none holds {rate:g} frames a second; the fastest are"
    table = _new_table(
        title,
        ("picture", "frames", "a latent", "described", "ms a run", "latency ms", "rate", "GB"),
    )
    for run in (holding or report.candidates)[:_CANDIDATES_SHOWN]:
        setting = run.setting
        table.add_row(
            f"{setting.width} x {setting.height}",
            str(setting.frames),
            "a frame" if setting.temporal_stride == 1 else f"{setting.temporal_stride} frames",
            "newest" if run.mode == "stream" else "all",
            _format_milliseconds(run.seconds),
            _format_milliseconds(run.latency),
            f"{run.rate:.3g}",
            _format_gigabytes(run.memory_bytes) + ("" if run.fits else ", too much"),
        )
    console.print(table)


def _format_setting(setting: Setting) -> str:
    stride = setting.temporal_stride
    latents = "a latent a frame" if stride == 1 else f"a latent for {stride} frames"
    return f"{setting.width} x {setting.height} x {setting.frames} frames, {latents}"


def _format_parts(kept: Part | None, whole: Part | None) -> tuple[str, ...]:
    pipeline = "-" if whole is None else _format_tera(whole.operations)
    if kept is None:
        return pipeline, "-", "-", "-", "-", "-"
    return (
        pipeline,
        _format_tera(kept.operations),
        _format_gigabytes(kept.moved_bytes),
        _format_gigabytes(kept.weight_bytes),
        _format_gigabytes(kept.activation_bytes),
        _format_milliseconds(kept.seconds),
    )


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
