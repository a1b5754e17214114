"""The state of a point tracker as named arrays, to be stored and taken up again."""

from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.base import PointTracker
from vditrack.points.point_memory import PointMemory

Arrays = Mapping[str, NDArray[Any]]
Table = TypeVar("Table")


def list_state(tracker: PointTracker) -> dict[str, NDArray[Any]]:
    """Return all that a tracker remembers, by the kind and the name of each value.

    Settings, and what is computed from them or from the last frame, are not part of it. The arrays
    are copies.
    """
    state: dict[str, NDArray[Any]] = {}
    for name, value in vars(tracker).items():
        if isinstance(value, np.ndarray):
            state[f"array/{name}"] = value.copy()
        elif isinstance(value, (int, float)):
            state[f"number/{name}"] = np.array(value)
        elif isinstance(value, FeatureMap):
            state[f"map/{name}"] = value.descriptors.copy()
        elif isinstance(value, PointMemory):
            state.update(_list_arrays(value, f"memory/{name}"))
        elif isinstance(value, deque) and all(isinstance(item, FeatureMap) for item in value):
            maps = [item.descriptors for item in value]
            state[f"maps/{name}"] = np.stack(maps) if maps else np.zeros(0, np.float32)
        elif isinstance(value, deque):
            state[f"numbers/{name}"] = np.array(value)
    return state


def restore_state(tracker: PointTracker, grid: Grid, state: Arrays) -> None:
    """Give a new tracker of the same settings the state of another one.

    Args:
        tracker: a new tracker.
        grid: of the bundle's feature maps.
        state: of `list_state`.

    """
    values = vars(tracker)
    for key, array in state.items():
        kind, name = key.split("/")[:2]
        if kind == "array":
            values[name] = array
        elif kind == "number":
            values[name] = array.item()
        elif kind == "map":
            values[name] = FeatureMap(grid, array)
        elif kind == "memory":
            values[name] = _read_table(PointMemory, state, f"memory/{name}")
        elif kind == "maps":
            values[name].clear()
            values[name].extend(FeatureMap(grid, descriptors) for descriptors in array)
        elif kind == "numbers":
            values[name].clear()
            values[name].extend(array.tolist())


def _list_arrays(table: Any, prefix: str) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    arrays: dict[str, NDArray[Any]] = {}
    for part in fields(table):
        value, key = getattr(table, part.name), f"{prefix}/{part.name}"
        arrays.update(_list_arrays(value, key) if is_dataclass(value) else {key: value.copy()})
    return arrays


def _read_table(kind: type[Table], state: Arrays, prefix: str) -> Table:
    parts: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        key = f"{prefix}/{name}"
        is_table = isinstance(hint, type) and is_dataclass(hint)
        parts[name] = _read_table(hint, state, key) if is_table else state[key]
    return kind(**parts)
