"""Proof of precision: in which types a network computes its products.

A strongly typed network binds the type of every layer, so that what the builder was given is what
the engine computes: a product of FP16 numbers is never silently one of FP32.
"""

import math
from collections import Counter
from pathlib import Path
from types import ModuleType

from vditrack.bundle.folder import FEATURES
from vditrack.bundle.manifest import Precision
from vditrack.engine_builder.library import Foreign
from vditrack.errors import EngineError

LEAST_SHARE = 0.9
"""Of the multiply-adds that must be in the low precision a bundle claims. What its export leaves in
FP32, a transformer's first layer and an autoencoder's attention, is a few percent of them."""
_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}


def product_shares(trt: ModuleType, network: Foreign) -> dict[str, float]:
    """Share of each type in the multiply-adds of a parsed network's products.

    Products are matrix multiplications, attention, which some versions of the library have as a
    layer of its own, and convolutions; other layers that multiply matrices do not come out of an
    export.
    """
    work: Counter[str] = Counter()
    # TensorRT 10.3 has no such layer.
    attention = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        dtype = layer.get_input(0).dtype.name if layer.num_inputs else ""
        # The bindings return layers as their base class, and are cast this way.
        if layer.type == trt.LayerType.MATRIX_MULTIPLY:
            layer.__class__ = trt.IMatrixMultiplyLayer
            work[dtype] += _of_matrices(trt, layer)
        elif layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer
            work[dtype] += _of_convolution(layer)
        elif layer.type == attention:
            work[dtype] += _of_attention(layer)
    total = work.total()
    return {_NAMES.get(dtype, dtype.lower()): count / total for dtype, count in work.items()}


def require_precision(graph: Path, shares: dict[str, float], claimed: Precision) -> None:
    """Refuse a network that does not compute in the low precision that its bundle claims.

    Raises:
        EngineError: less than `LEAST_SHARE` of its products do.

    """
    wanted = claimed.features if graph.name == FEATURES else claimed.encoder
    share = shares.get(wanted, 0.0)
    if wanted == "fp32" or share >= LEAST_SHARE:
        return
    found = ", ".join(f"{100 * part:.1f}% {name}" for name, part in shares.items()) or "none"
    raise EngineError(
        f"{graph}: the bundle says {wanted}, and the network computes its products in {found}. "
        "Export the bundle again."
    )


def _of_matrices(trt: ModuleType, layer: Foreign) -> int:
    rows = layer.get_input(0).shape
    summed = rows[-2] if layer.op0 == trt.MatrixOperation.TRANSPOSE else rows[-1]
    return int(math.prod(layer.get_output(0).shape) * summed)


def _of_attention(layer: Foreign) -> int:
    """Of queries, keys and values [batch, heads, tokens, channels]."""
    query, key, value = (layer.get_input(index).shape for index in range(3))
    return int(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def _of_convolution(layer: Foreign) -> int:
    channels = layer.get_input(0).shape[1] // layer.num_groups
    kernel = math.prod(layer.kernel_size_nd)
    return int(math.prod(layer.get_output(0).shape) * channels * kernel)
