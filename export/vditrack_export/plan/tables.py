"""A plan printed: tables for people."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from vditrack_export.plan.devices import Device
from vditrack_export.plan.pipeline import Setting
from vditrack_export.plan.report import Comparison, Report
from vditrack_export.plan.runs import Part, Run

_PARTS = ("text encoder", "encoder", "transformer", "matching", "decoder")
_CANDIDATES_SHOWN = 12


def print_report(console: Console, report: Report) -> None:
    """Print operations, memory and time, then which sizes hold the rate."""
    question = report.question
    console.print(
        f"[bold]{report.card}[/bold] on {question.device.title}, {question.precision}, at "
        f"{question.efficiency:.0%} of peak operations and bandwidth, {question.points} points"
    )
    for comparison in report.comparisons:
        _print_comparison(console, comparison, report)
    _print_candidates(console, report)
    console.print(
        "Operations are twice the multiply-adds; moved bytes count elementwise work as fused. The "
        "pipeline is one denoising step with both guidance passes. Times are the roofline's, as if "
        "matching ran on the device too; it runs on the host's CPU."
    )


def print_devices(console: Console, devices: dict[str, Device]) -> None:
    """Print the device table with its sources."""
    table = _table(
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
        console.print(f"[bold]{name}[/bold]: {device.source}", highlight=False)


def _print_comparison(console: Console, comparison: Comparison, report: Report) -> None:
    kept, whole = comparison.kept.parts, comparison.pipeline
    table = _table(
        f"{_described(comparison.setting)}: {comparison.tokens} tokens",
        ("part", "pipeline TFLOP", "kept TFLOP", "moved GB", "weights GB", "peak GB", "ms"),
    )
    for name in _PARTS:
        if name in kept or name in whole:
            table.add_row(name, *_cells(kept.get(name), whole.get(name)))
    table.add_section()
    table.add_row("all", *_cells(_sum(kept.values()), _sum(whole.values())))
    console.print(table)
    console.print(
        f"The whole pipeline takes {comparison.ratio:.1f} times the operations of what is kept, "
        f"the transformer alone {comparison.transformer_ratio:.1f} times."
    )
    usable = "fits" if comparison.kept.fits else "does not fit"
    console.print(
        f"Memory {_gigabytes(comparison.kept.memory_bytes)} GB, {usable}; with attention that "
        f"keeps tokens x tokens {_gigabytes(comparison.decomposed_memory_bytes)} GB."
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
        f"{name}: {_milliseconds(run.seconds)} ms for {run.new_frames} new {frames}, "
        f"{run.rate:.3g} frames a second."
    )


def _print_candidates(console: Console, report: Report) -> None:
    rate, holding = report.question.rate, report.holding
    if holding:
        title = f"hold {rate:g} frames a second, largest first ({len(holding)} in all)"
    else:
        title = f"none holds {rate:g} frames a second; the fastest are"
    table = _table(
        title,
        ("picture", "frames", "a latent", "described", "ms a run", "latency ms", "rate", "GB"),
    )
    for run in (holding or report.candidates)[:_CANDIDATES_SHOWN]:
        setting = run.setting
        table.add_row(
            f"{setting.height} x {setting.width}",
            str(setting.frames),
            "a frame" if setting.temporal_stride == 1 else f"{setting.temporal_stride} frames",
            "newest" if run.mode == "stream" else "all",
            _milliseconds(run.seconds),
            _milliseconds(run.latency),
            f"{run.rate:.3g}",
            _gigabytes(run.memory_bytes) + ("" if run.fits else ", too much"),
        )
    console.print(table)


def _described(setting: Setting) -> str:
    stride = setting.temporal_stride
    latents = "a latent a frame" if stride == 1 else f"a latent for {stride} frames"
    return f"{setting.height} x {setting.width} x {setting.frames} frames, {latents}"


def _cells(kept: Part | None, whole: Part | None) -> tuple[str, ...]:
    pipeline = "-" if whole is None else _tera(whole.operations)
    if kept is None:
        return pipeline, "-", "-", "-", "-", "-"
    return (
        pipeline,
        _tera(kept.operations),
        _gigabytes(kept.moved_bytes),
        _gigabytes(kept.weight_bytes),
        _gigabytes(kept.activation_bytes),
        _milliseconds(kept.seconds),
    )


def _sum(parts: Iterable[Part]) -> Part:
    every = list(parts)
    return Part(
        operations=sum(part.operations for part in every),
        moved_bytes=sum(part.moved_bytes for part in every),
        weight_bytes=sum(part.weight_bytes for part in every),
        activation_bytes=sum(part.activation_bytes for part in every),
        seconds=sum(part.seconds for part in every),
    )


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    return table


def _tera(operations: int) -> str:
    return _figure(operations / 1e12)


def _gigabytes(count: int) -> str:
    return _figure(count / 1e9)


def _milliseconds(seconds: float) -> str:
    return _figure(1e3 * seconds)


def _figure(value: float) -> str:
    """Three figures or all before the point."""
    if value == 0:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.01 else f"{value:.2g}"
