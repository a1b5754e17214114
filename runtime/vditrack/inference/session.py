"""The protocol of inference sessions: named NumPy arrays in, named NumPy arrays out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import BackendError

Array = NDArray[Any]
_HALF_EXPONENT = np.uint16(0x7C00)
"""Bits of the exponent of an FP16 number: all are set in NaN and infinity (IEEE 754)."""


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
            Arrays by output name, of the shapes and dtypes in ``outputs``, all finite.

        Raises:
            BackendError: The graph fails to run, or an output is not finite.

        """
        ...


def check_outputs(graph: Path, outputs: Mapping[str, Array]) -> None:
    """Check that the outputs of a graph are finite numbers.

    Args:
        graph: The graph or engine, for the message.
        outputs: Arrays by output name.

    Raises:
        BackendError: An output holds NaN or infinite values.

    """
    for name, output in outputs.items():
        if not _is_finite(output):
            count = np.count_nonzero(~np.isfinite(output))
            raise BackendError(
                f"{graph} gives wrong results: {count} of the {output.size} values of its output "
                f"{name!r} are NaN or infinite. In FP16, numbers above 65504 overflow: export the "
                "bundle in BF16 or FP32 (--precision) and build its engines again. In FP32, its "
                "weights are damaged: export it again from the original checkpoint."
            )


def _is_finite(output: Array) -> bool:
    if output.dtype == np.float16 and output.size:
        # NumPy converts each value first; the bits of the exponent say the same, in less time.
        return bool((output.view(np.uint16) & _HALF_EXPONENT).max() < _HALF_EXPONENT)
    return bool(np.isfinite(output).all())


OpenGraph = Callable[[Path], Session]
"""Loads one ONNX graph of a bundle on an inference engine."""


class AbsentError(BackendError):
    """A backend is not available: a library is not installed, or no engine was built."""
