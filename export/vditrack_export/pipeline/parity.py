"""Comparison of exported graphs with the unmodified model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vditrack.errors import VditrackError

MAX_RELATIVE_ERROR = 1e-5


def relative_error(
    what: str, output: NDArray[Any], reference: Tensor, allowed: float = MAX_RELATIVE_ERROR
) -> float:
    """Largest difference over the reference's largest magnitude.

    Raises:
        VditrackError: it is above what is allowed, or not a number.

    """
    expected = reference.detach().numpy().reshape(output.shape)
    error = float(np.abs(output - expected).max() / np.abs(expected).max())
    # Written so that NaN fails.
    if not error <= allowed:
        raise VditrackError(
            f"{what} differs from the model it was exported from by {error:.1e}, more than "
            f"{allowed:.0e}. Nothing was written; try the versions of torch, onnx and "
            "onnxruntime that this vditrack was tested with."
        )
    return error
