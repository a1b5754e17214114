"""Causal convolution of one group of frames after another."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vditrack_export.families.rounded_products import round_input, widen_output

Beginning = Callable[[Tensor, int], Tensor]
"""Pads a clip [1, C, T, H, W] in front with so many frames."""


class History:
    """The frames before a group, for each layer of an encoder, and the caches for the next group.

    Args:
        caches: Caches of the previous group, in the order of the layers; none at a clip's start.

    """

    def __init__(self, caches: Sequence[Tensor]) -> None:
        """Start at the beginning of a group."""
        self.begins = not caches
        self.next_caches: list[Tensor] = []
        self._caches = iter(caches)

    def extend(self, x: Tensor, frames: int, beginning: Beginning) -> Tensor:
        """Prepend ``frames`` previous frames to ``x``; at a clip's start ``beginning`` makes them.

        The last ``frames`` frames of the result become a cache for the next group.
        """
        if self.begins:
            extended = beginning(x, frames)
        else:
            extended = torch.cat((next(self._caches), x), dim=2)
        # A view would keep all of the group alive; the exporter drops the copy.
        self.next_caches.append(extended[:, :, -frames:].clone())
        return extended


def convolve(conv: nn.Conv3d, x: Tensor, history: History, beginning: Beginning) -> Tensor:
    """Convolve [1, C, T, H, W] to as many frames, each from itself and earlier ones.

    Args:
        conv: Convolution with odd rows and columns, without stride; its own padding is not used.
        x: One group of frames.
        history: Frames before the group.
        beginning: Padding at a clip's start.

    """
    frames, rows, columns = conv.kernel_size
    # Caches have the precision of the weights, like all that is multiplied with them.
    extended = history.extend(round_input(conv, x), frames - 1, beginning)
    # Padding by the convolution itself avoids a copy of every map.
    padding = (0, rows // 2, columns // 2)
    return widen_output(conv, F.conv3d(extended, conv.weight, conv.bias, padding=padding))
