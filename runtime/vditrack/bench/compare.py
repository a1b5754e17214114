"""Comparison of two results, with the differences that make them incomparable."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from vditrack.bench.machine import format_load_warning
from vditrack.bench.result import BenchResult

_CONDITIONS = ("machine", "versions", "bundle", "clip", "settings")


class Row(msgspec.Struct, frozen=True):
    """One figure of both results; None where a result does not have it."""

    figure: str
    a: float | None
    b: float | None
    ratio: float | None
    """b / a; None where either is None or a is 0."""


class Comparison(msgspec.Struct, frozen=True):
    """Two results, and what else differs between them."""

    warnings: tuple[str, ...]
    rows: tuple[Row, ...]


def compare_results(a: BenchResult, b: BenchResult) -> Comparison:
    """Compare all figures, and warn of conditions that differ and of machines under load."""
    figures_a, figures_b = (dict(_flatten(msgspec.to_builtins(x.figures))) for x in (a, b))
    rows = [
        _make_row(name, figures_a.get(name), figures_b.get(name)) for name in figures_a | figures_b
    ]
    return Comparison((*_list_differences(a, b), *_list_load_warnings(a, b)), tuple(rows))


def _make_row(figure: str, a: float | None, b: float | None) -> Row:
    return Row(figure, a, b, None if a is None or b is None or a == 0 else b / a)


def _flatten(figures: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, float | None]]:
    """Yield each number in nested mappings, under its keys joined by spaces."""
    for key, value in figures.items():
        path = f"{name} {key}".strip()
        if isinstance(value, Mapping):
            yield from _flatten(value, path)
        else:
            yield path, value


def _list_differences(a: BenchResult, b: BenchResult) -> Iterator[str]:
    conditions = zip(_CONDITIONS, _conditions_of(a), _conditions_of(b), strict=True)
    for subject, of_a, of_b in conditions:
        differing = [
            f"{key} {of_a.get(key)} and {of_b.get(key)}"
            for key in of_a | of_b
            if of_a.get(key) != of_b.get(key)
        ]
        if differing:
            yield f"not the same {subject}: {'; '.join(differing)}"


def _conditions_of(result: BenchResult) -> tuple[dict[str, object], ...]:
    """Return what a result was measured with, in the order of ``_CONDITIONS``."""
    return (
        msgspec.structs.asdict(result.machine),
        {"backend": result.backend, **result.versions},
        msgspec.structs.asdict(result.bundle),
        {"sha256": result.clip_sha256},
        msgspec.structs.asdict(result.settings),
    )


def _list_load_warnings(a: BenchResult, b: BenchResult) -> Iterator[str]:
    for name, result in (("A", a), ("B", b)):
        warning = format_load_warning(result.machine, result.load_average)
        if warning:
            yield f"{name}: {warning}"
