"""Causal convolution, group of frames after group of frames."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Beginning = Callable[[Tensor, int], Tensor]
"""Puts before a clip [1, C, T, H, W] so many frames that stand for those it does not have."""


class History:
    """What the layers of an encoder see of the frames before a group, and leave for the next.

    Args:
        caches: what the group before left, in the order in which the layers ask; none at the
            beginning of a clip.

    """

    def __init__(self, caches: Sequence[Tensor]) -> None:
        self.begins = not caches
        self.next_caches: list[Tensor] = []
        self._caches = iter(caches)

    def extend(self, x: Tensor, frames: int, beginning: Beginning) -> Tensor:
        """Put the ``frames`` frames before ``x`` in front of it; at a clip's start ``beginning``'s.

        The last ``frames`` of the result are kept for the next group.
        """
        if self.begins:
            extended = beginning(x, frames)
        else:
            extended = torch.cat((next(self._caches), x), dim=2)
        # A view would keep all of the group alive; the exporter drops the copy.
        self.next_caches.append(extended[:, :, -frames:].clone())
        return extended


def convolve(conv: nn.Conv3d, x: Tensor, history: History, beginning: Beginning) -> Tensor:
    """Convolve [1, C, T, H, W] to as many frames, each from itself and those before it.

    Args:
        conv: of an odd number of rows and columns, without stride; its own padding is not used.
        x: one group of frames.
        history: what came before.
        beginning: what a clip begins with.

    """
    frames, rows, columns = conv.kernel_size
    # What is carried is what is multiplied, so in the weights' precision.
    extended = history.extend(x.to(conv.weight.dtype), frames - 1, beginning)
    # Padding by the convolution itself spares a copy of every map.
    padding = (0, rows // 2, columns // 2)
    return F.conv3d(extended, conv.weight, conv.bias, padding=padding).float()
