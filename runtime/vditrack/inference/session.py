"""The protocol of inference sessions: named NumPy arrays in, named NumPy arrays out."""

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
    """The static shape and dtype of one named input or output of a graph."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Session(Protocol):
    """A loaded graph that is ready to run."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once.

        Args:
            inputs: Arrays by input name, of the shapes and dtypes in ``inputs``.

        Returns:
            Arrays by output name, of the shapes and dtypes in ``outputs``.

        """
        ...


OpenGraph = Callable[[Path], Session]
"""Loads one ONNX graph of a bundle on an inference engine."""


class AbsentError(BackendError):
    """A backend is not available: a library is not installed, or no engine was built."""
