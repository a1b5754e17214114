"""Convolutions that look back in time, group of frames after group of frames."""

from collections.abc import Sequence

from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Trace

# Frames of the group before that a convolution of three taps in time looks back at.
_CARRIED = 2


class CausalConvolutions:
    """Convolutions of [C, T, H, W], and what they carry from one group of frames to the next."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._carried: dict[str, Tensor] = {}

    def convolve(
        self, name: str, x: Tensor, channels: int, kernel: tuple[int, int, int] = (3, 3, 3)
    ) -> Tensor:
        """Convolve with three taps in time, to as many frames."""
        width, frames, *area = x.shape
        before = [self._carried[name]] if name in self._carried else []
        extended = self._trace.copied((width, frames + _CARRIED, *area), x, *before)
        known = frames + (before[0].shape[1] if before else 0)
        self._carried[name] = self._trace.copied((width, min(_CARRIED, known), *area), x, *before)
        return self._trace.convolve(name, extended, channels, kernel, (frames, *area))


def joined(trace: Trace, groups: Sequence[Tensor]) -> Tensor:
    """Put groups of frames [C, T, H, W] together."""
    width, _, *area = groups[0].shape
    return trace.copied((width, sum(group.shape[1] for group in groups), *area), *groups)
