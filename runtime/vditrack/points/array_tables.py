"""Tables: dataclasses whose arrays have a row for each point, tables within tables too."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Table = TypeVar("Table")


def chosen(table: Table, rows: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Table:
    """Return some rows of a table, by a mask [N] or by their numbers."""
    return _each(table, lambda array: array[rows])


def joined(first: Table, second: Table) -> Table:
    """Return the rows of one table and then those of another."""
    return _each(first, lambda a, b: np.concatenate([a, b]), second)


def _each(table: Table, change: Callable[..., NDArray[Any]], *others: Table) -> Table:
    parts: dict[str, Any] = {}
    for part in fields(table):  # type: ignore[arg-type]
        values = [getattr(one, part.name) for one in (table, *others)]
        arrays = isinstance(values[0], np.ndarray)
        parts[part.name] = change(*values) if arrays else _each(values[0], change, *values[1:])
    return type(table)(**parts)
