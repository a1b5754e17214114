"""Checks that TensorRT-RTX can build a parsed network for an architecture, before it is built.

Turing (sm75) is the only architecture with gaps: TensorRT-RTX 1.7 multiplies matrices and convolves
clips there in FP16 only, and has no BF16. FP32 attention and FP32 convolutions of images build.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from vditrack.engine_builder.library import LibraryObject
from vditrack.errors import EngineError

TURING = "sm75"


class UnsupportedArchitectureError(EngineError):
    """The library does not build a graph for an architecture, whatever else it is built for."""

    def __init__(self, message: str, architecture: str) -> None:
        """Store the message and the architecture, as in ``sm75``."""
        super().__init__(message)
        self.architecture = architecture


def require_architectures(
    trt: ModuleType,
    network: LibraryObject,
    graph: Path,
    architectures: tuple[str, ...],
    title: str,
) -> None:
    """Check that a network can be built for all of the architectures.

    Args:
        trt: Module of TensorRT-RTX.
        network: The parsed network.
        graph: Its ONNX file.
        architectures: Compute capabilities to build for, as in ``sm89``.
        title: Name of the library, with its version.

    Raises:
        UnsupportedArchitectureError: One of them is Turing, and the network has layers that do not
            build for it.

    """
    if TURING not in architectures:
        return
    gaps = {
        reason: names
        for reason, test in _GAPS.items()
        if (names := list(_find(network, trt, test)))
    }
    if not gaps:
        return
    found = " and ".join(
        f"{reason} ({len(names)}, the first is node {names[0]!r})" for reason, names in gaps.items()
    )
    raise UnsupportedArchitectureError(
        f"{graph}: {title} does not build this graph for Turing ({TURING}), because it has "
        f"{found}. Export the bundle with --precision fp16, leave {TURING} out of --arch, or use "
        "ONNX Runtime on Turing, with --backend cuda.",
        TURING,
    )


def _find(
    network: LibraryObject, trt: ModuleType, test: Callable[[ModuleType, LibraryObject], bool]
) -> Iterator[str]:
    """Yield the names of the layers that a test is true of."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    yield from (layer.name for layer in layers if test(trt, layer))


def _is_bf16(trt: ModuleType, layer: LibraryObject) -> bool:
    outputs = (layer.get_output(index) for index in range(layer.num_outputs))
    return any(output.dtype == trt.DataType.BF16 for output in outputs)


def _is_fp32_matrix_product(trt: ModuleType, layer: LibraryObject) -> bool:
    return bool(
        layer.type == trt.LayerType.MATRIX_MULTIPLY
        and layer.get_input(0).dtype == trt.DataType.FLOAT
    )


def _is_fp32_clip_convolution(trt: ModuleType, layer: LibraryObject) -> bool:
    return bool(
        layer.type == trt.LayerType.CONVOLUTION
        and layer.get_input(0).dtype == trt.DataType.FLOAT
        and len(layer.get_input(0).shape) == len("NCTHW")
    )


_GAPS = {
    "results in BF16": _is_bf16,
    "matrix products in FP32": _is_fp32_matrix_product,
    "3-D convolutions in FP32": _is_fp32_clip_convolution,
}
