"""Precision below FP32 for matrix products and convolutions, which take most of the time."""

from typing import Literal

import torch
from torch import Tensor, nn

from vditrack.bundle.manifest import Precision
from vditrack_export.families.layers import Attend

PrecisionName = Literal["fp32", "fp16", "bf16"]
EncoderPrecisionName = Literal["fp32", "fp16"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


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


def lower_precision(graph: nn.Module, precision: str) -> None:
    """Round the factors of products in place, weights and inputs; outputs are FP32 again.

    The residual stream, norms, modulation, rotary embedding and softmax stay in FP32. A model that
    shares its modules with the graph is changed too.

    Args:
        graph: a module in FP32.
        precision: "fp32", "fp16" or "bf16".

    """
    dtype = _DTYPES[precision]
    if dtype == torch.float32:
        return
    # ONNX has BF16 convolutions only from opset 22 on. A transformer has one, its first layer.
    convolutions = _CONVOLUTIONS if dtype == torch.float16 else ()
    for module in graph.modules():
        if isinstance(module, Attend):
            module.precision = dtype
        elif isinstance(module, (nn.Linear, *convolutions)):
            module.to(dtype)
            module.register_forward_pre_hook(_round_input)
            module.register_forward_hook(_widen_output)


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return inputs[0].to(weight.dtype)


def _widen_output(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return output.float()
