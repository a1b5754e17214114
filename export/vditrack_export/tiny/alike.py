"""ALIKE-L, a dense descriptor network, as the teacher of the bundled model.

Zhao et al., "ALIKE: Accurate and Lightweight Keypoint Detection and Descriptor Extraction", IEEE
Transactions on Multimedia 2022. The weights (BSD-3-Clause) are read from a file of the user's.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from vditrack.errors import InputError

CHANNELS = 128
CELL = 8
_SAMPLED = (0, 3, 4, 7)
_WIDTHS = (32, 64, 128, 128)
_POOLINGS = (1, 2, 4, 4)
_REDUCED = 32


class _Block(nn.Module):
    def __init__(self, before: int, after: int, *, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Conv2d(before, after, 1) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner if self.downsample is None else inner + self.downsample(x))


class Alike(nn.Module):
    """ALIKE-L up to its descriptors; its score map is not computed."""

    def __init__(self) -> None:
        """Build the layers with random weights."""
        super().__init__()
        for number, (before, after) in enumerate(
            zip((3, *_WIDTHS[:-1]), _WIDTHS, strict=True), start=1
        ):
            self.add_module(f"block{number}", _Block(before, after, residual=number > 1))
            self.add_module(f"conv{number}", nn.Conv2d(after, _REDUCED, 1, bias=False))
        self.convhead1 = nn.Conv2d(len(_WIDTHS) * _REDUCED, CHANNELS, 1, bias=False)
        self.convhead2 = nn.Conv2d(CHANNELS, CHANNELS + 1, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Map RGB float32 [B, 3, H, W] in [0, 1] to unit descriptors, [B, 128, H, W].

        H and W are multiples of 32.
        """
        rows, columns = (torch.arange(size, device=frames.device) for size in frames.shape[-2:])
        return self._describe_pixels(frames, rows, columns)

    def describe_cells(self, frames: Tensor) -> Tensor:
        """Return the mean descriptors of cells of 8 x 8 pixels, [B, 128, H / 8, W / 8].

        It is the mean of 16 pixels of a cell, which lie evenly about its centre.
        """
        inside = torch.tensor(_SAMPLED, device=frames.device)
        rows, columns = (
            (torch.arange(0, size, CELL, device=frames.device)[:, None] + inside).flatten()
            for size in frames.shape[-2:]
        )
        described = self._describe_pixels(frames, rows, columns)
        return functional.avg_pool2d(described, len(_SAMPLED))

    def _describe_pixels(self, frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the descriptors where some rows and columns of pixels meet."""
        size = frames.shape[-2:]
        levels, x = [], frames
        for number, pooling in enumerate(_POOLINGS, start=1):
            if pooling > 1:
                x = functional.max_pool2d(x, pooling)
            x = self.get_submodule(f"block{number}")(x)
            reduced = functional.relu(self.get_submodule(f"conv{number}")(x))
            levels.append(_sample(_sample(reduced, rows, size[0], -2), columns, size[1], -1))
        hidden = functional.relu(self.convhead1(torch.cat(levels, dim=1)))
        return functional.normalize(self.convhead2(hidden)[:, :CHANNELS], dim=1)


def _sample(level: Tensor, places: Tensor, size: int, axis: int) -> Tensor:
    """Enlarge an axis to a size linearly, with aligned corners, and return some of its places."""
    wanted = places * ((level.shape[axis] - 1) / (size - 1))
    before = wanted.long().clamp(max=level.shape[axis] - 2)
    share = (wanted - before).to(level.dtype)
    share = share[:, None] if axis == -2 else share
    low = level.index_select(axis, before)
    return low + share * (level.index_select(axis, before + 1) - low)


def load_alike(path: Path) -> Alike:
    """Read the weights of ALIKE-L, ready for inference.

    Raises:
        InputError: the file does not hold the weights of ALIKE-L.

    """
    model = Alike()
    try:
        model.load_state_dict(load_file(path))
    # A damaged file and unfit names or shapes each raise a class of their own.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not hold the weights of ALIKE-L: {reason}") from error
    return model.eval()
