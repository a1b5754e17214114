"""Precision below FP32 for matrix products and convolutions, which take most of the time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from vditrack.bundle.manifest import Precision
from vditrack_export.families.layers import Attend
from vditrack_export.families.rounded_products import round_input, set_scales, widen_output
from vditrack_export.pipeline.ranges import Range

PrecisionName = Literal["fp32", "fp16", "bf16"]
EncoderPrecisionName = Literal["fp32", "fp16"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_LAYERS = nn.Linear | nn.Conv2d | nn.Conv3d
_SMALLEST, _LARGEST = 2.0**-8, 2.0**10
"""The range of largest magnitudes in which FP16 is not scaled. Above, a factor of 64 is left to the
largest number of FP16, for frames other than those that were measured. Below, numbers of 1/64 of
the largest would be subnormal."""


def choose_precision(
    precision: PrecisionName, encoder_precision: EncoderPrecisionName | None = None
) -> Precision:
    """Return the precision of both networks that ``vditrack export`` makes of its options.

    The encoder of a BF16 transformer is in FP16. Its work is convolutions, which ONNX has in BF16
    from opset 22 only: TensorRT 10.3 reads opset 20, and ONNX Runtime has no such kernels on the
    CPU. FP16 also rounds to 11 bits, BF16 to 8.

    Args:
        precision: ``--precision``.
        encoder_precision: ``--encoder-precision``, which goes before; None if not given.

    """
    if encoder_precision is None:
        encoder_precision = "fp32" if precision == "fp32" else "fp16"
    return Precision(encoder=encoder_precision, features=precision)


def lower_precision(
    graph: nn.Module, precision: str, ranges: Mapping[str, Range] | None = None
) -> None:
    """Round the factors of products in place, weights and inputs; outputs are FP32 again.

    The residual stream, norms, modulation, rotary embedding and softmax stay in FP32. A model that
    shares its modules with the graph is changed too.

    Args:
        graph: a module in FP32; layers that are lowered already stay as they are.
        precision: "fp32", "fp16" or "bf16".
        ranges: the ranges of the graph's layers by name, see
            `vditrack_export.pipeline.ranges.measure_ranges`. In FP16, layers beyond its range are
            scaled by powers of two.

    """
    dtype = DTYPES[precision]
    if dtype == torch.float32:
        return
    # ONNX has BF16 convolutions only from opset 22 on. A transformer has one, its first layer.
    layers = _LAYERS if dtype == torch.float16 else nn.Linear
    for name, module in graph.named_modules():
        if isinstance(module, Attend):
            module.precision = dtype
        elif isinstance(module, layers) and module.weight.dtype != dtype:
            if dtype == torch.float16 and ranges is not None and name in ranges:
                _scale(module, ranges[name])
            module.to(dtype)
            module.register_forward_pre_hook(_round_input)
            module.register_forward_hook(_widen_output)


def count_products(graph: nn.Module) -> int:
    """Return the number of products of a graph whose precision was lowered; attention has two."""
    count = 0
    for module in graph.modules():
        if isinstance(module, Attend):
            count += 2 * (module.precision != torch.float32)
        elif isinstance(module, _LAYERS):
            count += module.weight.dtype != torch.float32
    return count


def _scale(layer: nn.Linear | nn.Conv2d | nn.Conv3d, found: Range) -> None:
    """Scale a layer's weights in place, and let its input and output be scaled, to fit FP16."""
    shift = _exponent(found.input)
    weight_shift = _exponent(float(layer.weight.detach().abs().max()))
    # The output is scaled by both.
    excess = math.frexp(max(found.output, 1e-30) / _LARGEST)[1] - (shift + weight_shift)
    weight_shift += max(excess, 0)
    with torch.no_grad():
        layer.weight.mul_(2.0**-weight_shift)
        if layer.bias is not None:
            layer.bias.mul_(2.0 ** -(shift + weight_shift))
    set_scales(layer, 2.0**-shift, 2.0 ** (shift + weight_shift))


def _exponent(largest: float) -> int:
    """Return the power of two by which numbers are divided, from their largest magnitude."""
    if largest > _LARGEST:
        return math.frexp(largest / _LARGEST)[1]
    if 0 < largest < _SMALLEST:
        return math.frexp(largest / _SMALLEST)[1] - 1
    return 0


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return round_input(module, inputs[0])


def _widen_output(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return widen_output(module, output)
