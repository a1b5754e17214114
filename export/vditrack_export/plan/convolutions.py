"""The small convolutional encoder, `vditrack_export.tiny.model.TinyEncoder`."""

from vditrack_export.families.tiny.shapes import Convolutions
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Cost, Fusion, Trace


def convolutional_encoder(
    shape: Convolutions, size: tuple[int, int, int], *, fusion: Fusion
) -> Cost:
    """From frames (count, height, width), each alone, to their latents."""
    trace = Trace(fusion)
    x = Tensor((3, *size))
    for level, width in enumerate(shape.widths):
        frames, height, breadth = x.shape[1:]
        half = (frames, height // 2, breadth // 2)
        x = trace.convolve(f"{level}.down", x, width, (4, 4), half)
        inner = trace.convolve(f"{level}.first", trace.copied(x.shape, x), width, (3, 3), half)
        inner = trace.convolve(f"{level}.second", trace.elementwise(inner), width, (3, 3), half)
        x = trace.elementwise(inner, x)
    return trace.cost(trace.convolve("head", x, shape.latent_channels, (1, 1), x.shape[1:]))
