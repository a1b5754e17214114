"""Tables of results for a terminal."""

from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.table import Table

from vditrack.bench.compare import Comparison
from vditrack.bench.result import BenchResult, CameraRun, Distribution, Figures
from vditrack.bench.search import keeps_up


def print_result(console: Console, result: BenchResult) -> None:
    """Print the machine, the settings and all figures."""
    asdict = msgspec.structs.asdict
    figures = result.figures
    console.print(_make_facts("machine", asdict(result.machine).items()))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    settings = {
        "bundle": f"{result.bundle.name} {result.bundle.sha256[:12]}",
        "backend": result.backend,
        "versions": versions,
        "load average": f"{result.load_average:.2f}",
        "clip": f"{result.settings.width} x {result.settings.height} {result.clip_sha256[:12]}",
        "points": result.settings.points,
    }
    console.print(_make_facts("settings", settings.items()))
    console.print(_make_durations(figures))
    console.print(_make_rates(result))
    console.print(_make_facts("also", _list_others(figures)))


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print both results side by side, after warnings of what makes them incomparable."""
    for warning in comparison.warnings:
        console.print(warning, style="bold red", soft_wrap=True)
    table = Table("figure", title="A and B", title_justify="left")
    for column in ("A", "B", "B / A"):
        table.add_column(column, justify="right")
    for row in comparison.rows:
        numbers = (_format_number(row.a), _format_number(row.b), _format_number(row.ratio, ".3f"))
        table.add_row(row.figure.replace("_", " "), *numbers)
    console.print(table)


def _make_durations(figures: Figures) -> Table:
    table = Table("ms", title="time of a frame", title_justify="left")
    for column in Distribution.__struct_fields__:
        table.add_column(column, justify="right")
    for stage, spent in figures.work_ms.items():
        table.add_row(stage, *_format_durations(spent))
    table.add_section()
    if figures.networks_ms is not None:
        table.add_row("networks, where they run", *_format_durations(figures.networks_ms))
    table.add_row("latency from arrival", *_format_durations(figures.fixed_rate.latency_ms))
    table.add_row("warm-up", *_format_durations(figures.warm_up_ms))
    table.add_row("Lucas-Kanade", *_format_durations(figures.klt_ms))
    return table


def _make_rates(result: BenchResult) -> Table:
    title = "camera with a queue of one frame: frames per second; jitter and latency p99 in ms"
    table = Table("rate", title=title, title_justify="left")
    for column in ("offered", "processed", "dropped", "%", "output", "jitter", "p99", "ok"):
        table.add_column(column, justify="right")
    _add_run(table, result.figures.fixed_rate)
    table.add_section()
    for trial in result.trials:
        _add_run(table, trial)
    return table


def _add_run(table: Table, run: CameraRun) -> None:
    table.add_row(
        f"{run.rate:.1f}",
        str(run.offered),
        str(run.processed),
        str(run.dropped),
        f"{100 * run.dropped / run.offered:.1f}",
        _format_number(run.output_rate),
        _format_number(run.jitter_ms),
        _format_number(run.latency_ms.p99),
        "yes" if keeps_up(run) else "no",
    )


def _list_others(figures: Figures) -> list[tuple[str, object]]:
    memory, latency = figures.memory_mib, figures.fixed_rate.latency_ms
    highest = figures.highest_rate
    return [
        ("fixed rate", f"{figures.fixed_rate.processed} frames, {figures.latents} latents"),
        ("highest rate, at most 5% dropped", f"{_format_number(highest)} frames per second"),
        ("free rate", f"{figures.free_rate:.1f} frames per second"),
        ("work of a frame", f"{figures.times_of_klt:.1f} times OpenCV's Lucas-Kanade"),
        ("load to first result", f"{figures.first_result_ms:.0f} ms"),
        ("first and last latency", f"{latency.first:.1f} ms, {latency.last:.1f} ms"),
        ("peak memory", f"{memory.peak:.0f} MiB, {memory.peak_before_load:.0f} before loading"),
        ("GPU memory", "-" if memory.gpu is None else f"{memory.gpu:.0f} MiB"),
    ]


def _format_durations(durations: Distribution) -> list[str]:
    return [f"{getattr(durations, name):.2f}" for name in Distribution.__struct_fields__]


def _make_facts(title: str, rows: Iterable[tuple[str, object]]) -> Table:
    table = Table("", "", title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name.replace("_", " "), "-" if value in (None, ()) else str(value))
    return table


def _format_number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)
