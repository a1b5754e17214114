"""Measures in which precision a network computes its products, and checks the bundle's claim.

In a strongly typed network the type of every layer is fixed, so the engine computes in the types of
the parsed network: an FP16 product never silently becomes an FP32 product.
"""

import math
from collections import Counter
from pathlib import Path
from types import ModuleType

from vditrack.bundle.folder import FEATURES
from vditrack.bundle.manifest import Precision
from vditrack.engine_builder.library import LibraryObject
from vditrack.errors import EngineError

MIN_PRODUCT_SHARE = 0.9
"""Smallest share of the multiply-adds that must be in the low precision that a bundle claims.

In BF16, export leaves convolutions in FP32, such as the first layer of a transformer.
"""
_PRECISION_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}


def measure_product_shares(trt: ModuleType, network: LibraryObject) -> dict[str, float]:
    """Return the share of each precision in the multiply-adds of a parsed network, 0 to 1.

    Counts matrix multiplications, convolutions and, in versions of the library that have such a
    layer, attention. Exported graphs contain no other layers that multiply matrices.
    """
    work: Counter[str] = Counter()
    # TensorRT 10.3 has no attention layer.
    attention = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        dtype = layer.get_input(0).dtype.name if layer.num_inputs else ""
        # The bindings return the base class; setting the class is their documented cast.
        if layer.type == trt.LayerType.MATRIX_MULTIPLY:
            layer.__class__ = trt.IMatrixMultiplyLayer
            work[dtype] += _count_matrix_product(trt, layer)
        elif layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer
            work[dtype] += _count_convolution(layer)
        elif layer.type == attention:
            work[dtype] += _count_attention(layer)
    total = work.total()
    return {
        _PRECISION_NAMES.get(dtype, dtype.lower()): count / total for dtype, count in work.items()
    }


def require_precision(graph: Path, shares: dict[str, float], claimed: Precision) -> None:
    """Check that a network computes in the low precision that its bundle claims.

    Args:
        graph: The ONNX file, which tells the encoder from the feature network.
        shares: Share of the multiply-adds by precision.
        claimed: Precision that the bundle claims.

    Raises:
        EngineError: The share of the claimed precision is below `MIN_PRODUCT_SHARE`.

    """
    required = claimed.features if graph.name == FEATURES else claimed.encoder
    share = shares.get(required, 0.0)
    # A model of pixels has an encoder without products.
    if required == "fp32" or share >= MIN_PRODUCT_SHARE or not shares:
        return
    found = ", ".join(f"{100 * part:.1f}% {name}" for name, part in shares.items())
    raise EngineError(
        f"{graph}: the bundle says {required}, but the network computes its products in {found}. "
        "Export the bundle again."
    )


def _count_matrix_product(trt: ModuleType, layer: LibraryObject) -> int:
    rows = layer.get_input(0).shape
    summed = rows[-2] if layer.op0 == trt.MatrixOperation.TRANSPOSE else rows[-1]
    return int(math.prod(layer.get_output(0).shape) * summed)


def _count_attention(layer: LibraryObject) -> int:
    """Count the multiply-adds of attention over inputs [batch, heads, tokens, channels]."""
    query, key, value = (layer.get_input(index).shape for index in range(3))
    return int(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def _count_convolution(layer: LibraryObject) -> int:
    channels = layer.get_input(0).shape[1] // layer.num_groups
    kernel = math.prod(layer.kernel_size_nd)
    return int(math.prod(layer.get_output(0).shape) * channels * kernel)
