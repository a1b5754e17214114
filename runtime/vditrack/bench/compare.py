"""Two results beside each other, and whether they may be compared at all."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from vditrack.bench.machine import busy
from vditrack.bench.result import BenchResult


class Row(msgspec.Struct, frozen=True):
    """One figure of both results; None where one has it not."""

    figure: str
    a: float | None
    b: float | None
    ratio: float | None
    """b / a"""


class Comparison(msgspec.Struct, frozen=True):
    """Two results, and what else differs between them than speed."""

    warnings: tuple[str, ...]
    rows: tuple[Row, ...]


def compare(a: BenchResult, b: BenchResult) -> Comparison:
    """Compare figure by figure; what was not the same for both is warned of."""
    figures_a, figures_b = (dict(_flat(msgspec.to_builtins(x.figures))) for x in (a, b))
    rows = [_row(name, figures_a.get(name), figures_b.get(name)) for name in figures_a | figures_b]
    return Comparison((*_differences(a, b), *_busy(a, b)), tuple(rows))


def _row(figure: str, a: float | None, b: float | None) -> Row:
    return Row(figure, a, b, None if a is None or b is None or a == 0 else b / a)


def _flat(figures: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number in nested mappings, under the names on the way to it."""
    for key, value in figures.items():
        path = f"{name} {key}".strip()
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        else:
            yield path, value


def _differences(a: BenchResult, b: BenchResult) -> Iterator[str]:
    for subject, of_a, of_b in zip(_CONDITIONS, _conditions(a), _conditions(b), strict=True):
        differing = [
            f"{key} {of_a.get(key)} and {of_b.get(key)}"
            for key in of_a | of_b
            if of_a.get(key) != of_b.get(key)
        ]
        if differing:
            yield f"not the same {subject}: {'; '.join(differing)}"


_CONDITIONS = ("machine", "versions", "bundle", "clip", "settings")


def _conditions(result: BenchResult) -> tuple[dict[str, object], ...]:
    return (
        msgspec.structs.asdict(result.machine),
        {"backend": result.backend, **result.versions},
        msgspec.structs.asdict(result.bundle),
        {"sha256": result.clip_sha256},
        msgspec.structs.asdict(result.settings),
    )


def _busy(a: BenchResult, b: BenchResult) -> Iterator[str]:
    for name, result in (("A", a), ("B", b)):
        warning = busy(result.machine, result.load_average)
        if warning:
            yield f"{name}: {warning}"
