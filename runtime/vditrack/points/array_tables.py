"""Tables: dataclasses whose arrays have one row a point. A field may be a table itself."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Table = TypeVar("Table")


def select_rows(table: Table, rows: NDArray[np.bool_] | NDArray[np.integer[Any]] | slice) -> Table:
    """Return some rows of a table, given a mask [N], row numbers, or a slice, which copies none."""
    return _map_arrays(table, lambda array: array[rows])


def concatenate_rows(first: Table, *others: Table) -> Table:
    """Return the rows of one table, followed by those of others."""
    return _map_arrays(first, lambda *arrays: np.concatenate(arrays), *others)


def assign_rows(table: Table, rows: NDArray[np.integer[Any]], values: Table) -> None:
    """Write the rows of ``values`` over the given rows of a table, in place."""

    def assign(array: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
        array[rows] = new
        return array

    _map_arrays(table, assign, values)


def _map_arrays(table: Table, change: Callable[..., NDArray[Any]], *others: Table) -> Table:
    parts: dict[str, Any] = {}
    for part in fields(table):  # type: ignore[arg-type]
        values = [getattr(one, part.name) for one in (table, *others)]
        is_array = isinstance(values[0], np.ndarray)
        parts[part.name] = (
            change(*values) if is_array else _map_arrays(values[0], change, *values[1:])
        )
    return type(table)(**parts)
