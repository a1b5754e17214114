"""Graphs in INT8, written by ONNX Runtime's quantiser.

The encoder is rounded by ranges that were measured: convolutions, and the activations, products,
sums and enlargements between them, so that its arrays stay in INT8 from one convolution to the
next. The last convolution, which is small, stays in FP32: rounding latents costs more accuracy than
any other array. Of the transformer, the products with weights are rounded, by the range of each
run. Attention's own products, norms and softmax stay in FP32. Weights have a scale for each output
channel.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from vditrack.inference.session import Array
from vditrack_export.int8.calibration import Inputs

_ENCODER_OPERATORS = ["Conv", "Relu", "Resize", "Sigmoid", "Mul", "Add"]
_TRANSFORMER_OPERATORS = ["MatMul", "Gemm"]


class _Calibration:
    """Passes recorded inputs of a graph to the quantiser, as its ``CalibrationDataReader`` does."""

    def __init__(self, given: Inputs) -> None:
        self._remaining = iter(given)

    def get_next(self) -> dict[str, Array] | None:
        """Return the inputs of the next run, or None after the last."""
        found = next(self._remaining, None)
        return None if found is None else dict(found)


def write_int8_encoder(graph: Path, destination: Path, given: Inputs) -> None:
    """Write an encoder's graph in INT8.

    Args:
        graph: path of the graph in FP32.
        destination: path of the new graph.
        given: inputs that the ranges are measured on.

    """
    with _prepared(graph) as prepared:
        quantize_static(
            prepared,
            destination,
            _Calibration(given),
            op_types_to_quantize=_ENCODER_OPERATORS,
            nodes_to_exclude=_find_last_convolution(prepared),
            per_channel=True,
            # With signed activations ONNX Runtime leaves most convolutions on x86 in FP32.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # The mean of the extremes of each run. Those of all runs are rare, and widen the steps.
            extra_options={"CalibMovingAverage": True},
        )


def _find_last_convolution(graph: Path) -> list[str]:
    """Return the name of the last of several convolutions; nothing if there are fewer."""
    nodes = onnx.load(graph).graph.node
    return [node.name for node in nodes if node.op_type == "Conv"][1:][-1:]


def write_int8_transformer(graph: Path, destination: Path) -> None:
    """Write a transformer's graph whose products with weights are in INT8.

    Args:
        graph: path of the graph in FP32.
        destination: path of the new graph.

    """
    with _prepared(graph) as prepared:
        quantize_dynamic(
            prepared,
            destination,
            op_types_to_quantize=_TRANSFORMER_OPERATORS,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


@contextmanager
def _prepared(graph: Path) -> Iterator[Path]:
    """Yield the path of the graph with the shapes of all arrays, which the quantiser needs."""
    with tempfile.TemporaryDirectory() as folder, _silence_advice():
        prepared = Path(folder) / graph.name
        # All shapes are static, so symbolic shape inference is not needed.
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        yield prepared


@contextmanager
def _silence_advice() -> Iterator[None]:
    """Silence the quantiser's advice to prepare graphs, which it gives of prepared ones too."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
