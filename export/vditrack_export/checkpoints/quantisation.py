"""Refusal of weights that a library has quantised to integers."""

from collections.abc import Mapping
from pathlib import Path

from vditrack.errors import InputError
from vditrack_export.checkpoints.weights import Config

_REMEDY = (
    "Take the original checkpoint, in fp32, fp16 or bf16: export reduces the precision itself, "
    "with --precision."
)


def check_quantisation(path: Path, config: Config) -> None:
    """Check that a configuration does not describe quantised weights.

    Args:
        path: File of the configuration.
        config: Its content.

    Raises:
        InputError: It does; the message names the library.

    """
    quantisation = config.get("quantization_config")
    if quantisation is None:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, Mapping) else None
    raise InputError(
        f"{path}: the weights are quantised by {str(method or 'some library')[:40]} "
        f"(quantization_config). {_REMEDY}"
    )
