"""Results as tables for a terminal."""

from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vditrack.bench.compare import Comparison
from vditrack.bench.result import BenchResult, Distribution, Figures, Filmed
from vditrack.bench.search import keeps_up


def print_result(console: Console, result: BenchResult) -> None:
    """Print the machine, the settings, and all figures."""
    asdict = msgspec.structs.asdict
    figures = result.figures
    console.print(_facts("machine", asdict(result.machine).items()))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    told = {
        "bundle": f"{result.bundle.name} {result.bundle.sha256[:12]}",
        "backend": result.backend,
        "versions": versions,
        "load average": f"{result.load_average:.2f}",
        "clip": f"{result.settings.width} x {result.settings.height} {result.clip_sha256[:12]}",
        "points": result.settings.points,
    }
    console.print(_facts("settings", told.items()))
    console.print(_durations(figures))
    console.print(_rates(result))
    console.print(_facts("also", _others(figures)))


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print both results side by side, after what makes them incomparable."""
    for warning in comparison.warnings:
        console.print(f"[bold red]{escape(warning)}[/bold red]", soft_wrap=True)
    table = Table("figure", title="A and B", title_justify="left")
    for column in ("A", "B", "B / A"):
        table.add_column(column, justify="right")
    for row in comparison.rows:
        numbers = (_number(row.a), _number(row.b), _number(row.ratio, ".3f"))
        table.add_row(row.figure.replace("_", " "), *numbers)
    console.print(table)


def _durations(figures: Figures) -> Table:
    table = Table("ms", title="time of a frame", title_justify="left")
    for column in Distribution.__struct_fields__:
        table.add_column(column, justify="right")
    for stage, spent in figures.work_ms.items():
        table.add_row(stage, *_figures_of(spent))
    table.add_section()
    table.add_row("latency from arrival", *_figures_of(figures.fixed_rate.latency_ms))
    table.add_row("warm-up", *_figures_of(figures.warm_up_ms))
    table.add_row("Lucas-Kanade", *_figures_of(figures.klt_ms))
    return table


def _rates(result: BenchResult) -> Table:
    title = "camera with a queue of one frame: frames a second; jitter and latency p99 in ms"
    table = Table("rate", title=title, title_justify="left")
    for column in ("offered", "processed", "dropped", "%", "output", "jitter", "p99", "ok"):
        table.add_column(column, justify="right")
    _add_filmed(table, result.figures.fixed_rate)
    table.add_section()
    for trial in result.trials:
        _add_filmed(table, trial)
    return table


def _add_filmed(table: Table, filmed: Filmed) -> None:
    table.add_row(
        f"{filmed.rate:.1f}",
        str(filmed.offered),
        str(filmed.processed),
        str(filmed.dropped),
        f"{100 * filmed.dropped / filmed.offered:.1f}",
        _number(filmed.output_rate),
        _number(filmed.jitter_ms),
        _number(filmed.latency_ms.p99),
        "yes" if keeps_up(filmed) else "no",
    )


def _others(figures: Figures) -> list[tuple[str, object]]:
    memory, latency = figures.memory_mib, figures.fixed_rate.latency_ms
    highest = figures.highest_rate
    return [
        ("highest rate, at most 5% dropped", f"{_number(highest)} frames a second"),
        ("free rate", f"{figures.free_rate:.1f} frames a second"),
        ("work of a frame", f"{figures.times_of_klt:.1f} times OpenCV's Lucas-Kanade"),
        ("load to first result", f"{figures.first_result_ms:.0f} ms"),
        ("first and last latency", f"{latency.first:.1f} ms, {latency.last:.1f} ms"),
        ("peak memory", f"{memory.peak:.0f} MiB, {memory.peak_before_load:.0f} before loading"),
        ("GPU memory", "-" if memory.gpu is None else f"{memory.gpu:.0f} MiB"),
    ]


def _figures_of(durations: Distribution) -> list[str]:
    return [f"{getattr(durations, name):.2f}" for name in Distribution.__struct_fields__]


def _facts(title: str, rows: Iterable[tuple[str, object]]) -> Table:
    table = Table("", "", title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name.replace("_", " "), "-" if value in (None, ()) else escape(str(value)))
    return table


def _number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)
