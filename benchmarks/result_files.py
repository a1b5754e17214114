"""Result files of benchmarks, and the pages of docs/ that quote them.

Each benchmark writes ``benchmarks/results/NAME--MACHINE.json`` itself, with the option ``--json``.
A page quotes a figure between two comments, ``<!-- NAME:FIGURE:FORMAT -->276<!-- / -->``. FORMAT is
one of Python's, such as ``.1f``, or ``interval``: the mean, its interval, and whether it is
significantly worse or better than that of the first method.

Run: python benchmarks/result_files.py    # writes the figures of the result files into the pages
"""

import os
import re
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import msgspec

from vditrack.bench.machine import format_load_warning, read_load_average, read_machine
from vditrack.bench.result import Machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_PACKAGES = (
    "vditrack",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
)
"""Packages whose versions a result file has."""
_QUOTE = re.compile(r"<!-- ([\w-]+):([^:]+?):([^ ]+) -->(.*?)<!-- / -->")


class ResultFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run of a benchmark measured."""

    name: str
    """Name of the benchmark."""
    command: str
    """Command that repeats the run."""
    date: str
    """Day of the run, YYYY-MM-DD."""
    machine: Machine
    load_average: float
    """Mean number of processes that ran in the minute before the run."""
    versions: dict[str, str]
    """Version by package."""
    figures: dict[str, float]
    """Measured value by the name under which pages quote it; percent, seconds or MiB."""
    device: str | None = None
    """GPU that the run used; None for the CPU."""
    notes: dict[str, str] = {}
    """What is no number, such as the reason why a part was not measured, by its name."""


def begin() -> float:
    """Return the load average, and warn on stderr if the machine is busy; call it first."""
    load = read_load_average()
    warning = format_load_warning(read_machine(), load)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return load


def write(name: str, command: str, load: float, figures: dict[str, float]) -> Path:
    """Write the result file of a run on this machine, and return its path.

    Args:
        name: Name of the benchmark.
        command: Command that repeats the run, from the repository's root.
        load: What `begin` returned.
        figures: See `ResultFile`.

    """
    result = describe_run(name, command, load)
    return write_result(msgspec.structs.replace(result, figures=figures), RESULTS)


def describe_run(name: str, command: str, load: float, device: str | None = None) -> ResultFile:
    """Return the result of a run on this machine without its figures; see `write`.

    Args:
        name: Name of the benchmark.
        command: Command that repeats the run, from the repository's root.
        load: What `begin` returned.
        device: GPU that the run uses; None for the CPU.

    """
    threads = os.environ.get("OMP_NUM_THREADS")
    installed = {each.metadata["Name"].lower(): each.version for each in metadata.distributions()}
    return ResultFile(
        name=name,
        command=f"OMP_NUM_THREADS={threads} {command}" if threads else command,
        date=datetime.now(timezone.utc).date().isoformat(),
        machine=read_machine(),
        load_average=round(load, 2),
        versions={each: installed[each] for each in _PACKAGES if each in installed},
        figures={},
        device=device,
    )


def write_result(result: ResultFile, folder: Path) -> Path:
    """Write a result file under its own name, and return its path."""
    path = folder / file_name(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path


def file_name(result: ResultFile) -> str:
    """Return NAME--MACHINE.json: the GPU of the run, or the CPU and the cores that it could use."""
    machine = result.device or f"{result.machine.cpu} {result.machine.cores} cores"
    return f"{result.name}--{re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')}.json"


def read_all() -> dict[str, ResultFile]:
    """Return the newest result of each benchmark by name.

    Raises:
        ValidationError: A result file does not follow the schema.

    """
    results: dict[str, ResultFile] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = msgspec.json.decode(path.read_bytes(), type=ResultFile)
        known = results.get(result.name)
        if known is None or result.date >= known.date:
            results[result.name] = result
    return results


def fill_in(text: str, results: dict[str, ResultFile]) -> str:
    """Return a page with its quotes replaced by the figures of the result files.

    Raises:
        KeyError: A quote names a benchmark or a figure that no result file has.

    """

    def quote(found: re.Match[str]) -> str:
        name, figure, style, _ = found.groups()
        figures = results[name].figures
        value = (
            _format_interval(figures, figure)
            if style == "interval"
            else format(figures[figure], style)
        )
        return f"<!-- {name}:{figure}:{style} -->{value}<!-- / -->"

    return _QUOTE.sub(quote, text)


def _format_interval(figures: dict[str, float], name: str) -> str:
    mean, low, high = (figures[f"{name}{end}"] for end in ("", " low", " high"))
    verdict = ""
    if figures.get(f"{name} difference high", 0) < 0:
        verdict = ", worse"
    elif figures.get(f"{name} difference low", 0) > 0:
        verdict = ", better"
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]{verdict}"


def main() -> None:
    """Write the figures into the pages, and name the pages that changed."""
    results = read_all()
    for page in PAGES:
        text = page.read_text()
        filled = fill_in(text, results)
        if filled != text:
            page.write_text(filled)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
