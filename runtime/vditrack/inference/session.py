"""Inference engines behind one protocol: named numpy arrays in, named numpy arrays out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import BackendError

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """Static shape and dtype of one named input or output of a graph."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Session(Protocol):
    """One loaded graph."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once."""
        ...


OpenGraph = Callable[[Path], Session]
"""Loads a graph of a bundle on some engine."""


class AbsentError(BackendError):
    """What a backend needs is not installed or not built: nothing that was there has failed."""
