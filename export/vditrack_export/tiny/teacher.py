"""What a student learns from: a model that describes frames."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vditrack.arrays import FrameClip
from vditrack_export.tiny.alike import CHANNELS, load_alike


class Teacher(ABC):
    """A model whose descriptors a student learns."""

    name: str
    """What it is, for cards."""
    sha256: str
    """Digest of its files."""
    channels: int
    """Channels of its descriptors."""
    reads_between: bool = False
    """Whether it describes frames by those between them, as video models do."""
    temporal_stride: int = 1
    """Frames that share one description: of others it has none of its own."""

    @abstractmethod
    def describe(self, frames: FrameClip) -> Tensor:
        """Return the descriptors of consecutive frames, float32 [T, rows, columns, D].

        Args:
            frames: RGB, uint8 [T, H, W, 3].

        """

    def describe_each(self, frames: FrameClip) -> Tensor:
        """Return the descriptors of frames that are described one by one, as `describe` does."""
        if not self.reads_between:
            return self.describe(frames)
        return torch.cat([self.describe(frame[None]) for frame in frames])


class AlikeTeacher(Teacher):
    """ALIKE-L, which describes single frames of any size."""

    def __init__(self, weights: Path) -> None:
        """Read the weights; see `load_alike`."""
        self._device = choose_device()
        # In half precision and with channels last it takes a third of the time on a CPU.
        model = load_alike(weights).to(self._device, torch.bfloat16)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name, self.channels = f"ALIKE-L ({weights.name})", CHANNELS
        self.sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()

    @torch.no_grad()
    def describe(self, frames: FrameClip) -> Tensor:
        """See `Teacher.describe`; cells have 8 x 8 pixels, and sides are multiples of 32."""
        images = torch.from_numpy(np.array(frames)).to(self._device)
        images = (images.permute(0, 3, 1, 2).float() / 255).bfloat16()
        images = images.contiguous(memory_format=torch.channels_last)
        described: Tensor = self._model.describe_cells(images)
        return described.float().permute(0, 2, 3, 1).cpu()


def fit_grid(maps: Tensor, rows: int, columns: int) -> NDArray[np.float16]:
    """Return maps [T, h, w, D] as unit descriptors on another grid, [T, rows, columns, D].

    Both grids cover the same frame. Maps are interpolated bilinearly, or averaged over the area of
    a cell where the other grid is coarser.
    """
    if maps.shape[1:3] != (rows, columns):
        channels_first = maps.permute(0, 3, 1, 2)
        maps = functional.interpolate(
            channels_first, (rows, columns), mode="bilinear", antialias=True
        ).permute(0, 2, 3, 1)
    unit: NDArray[np.float16] = functional.normalize(maps, dim=-1).half().numpy()
    return unit


def choose_device() -> torch.device:
    """Return the first GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
