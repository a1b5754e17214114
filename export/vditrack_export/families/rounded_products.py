"""The factors and results of products in a precision below FP32.

FP16 ends at 65,504. A layer whose numbers exceed it, or nearly, has powers of two as attributes:
its input is multiplied by ``input_scale`` before it is rounded, and its output by ``output_scale``
after it is FP32 again. `pipeline.precision` sets them, and scales the weights to match.
"""

from typing import Any

import torch
from torch import Tensor, nn


def set_scales(layer: Any, input_scale: float, output_scale: float) -> None:  # noqa: ANN401
    """Set the powers of two that a layer's input and output are multiplied by.

    They are plain numbers: as buffers they would be rounded, and constants of the graph.
    """
    layer.input_scale, layer.output_scale = input_scale, output_scale


def round_input(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a layer's input in the precision of its weights; rounded ones stay as they are."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if x.dtype == weight.dtype:
        return x
    scale: float = getattr(layer, "input_scale", 1.0)
    return (x if scale == 1 else x * scale).to(weight.dtype)


def widen_output(layer: nn.Module, product: Tensor) -> Tensor:
    """Return a layer's output in FP32."""
    if product.dtype == torch.float32:
        return product
    scale: float = getattr(layer, "output_scale", 1.0)
    return product.float() if scale == 1 else product.float() * scale
