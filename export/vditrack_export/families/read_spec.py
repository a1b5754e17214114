"""What is read of a transformer, and at which denoising step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LatentShape = tuple[int, int, int, int]
"""Channels, frames, rows and columns of the latents."""

TensorName = Literal["keys", "queries", "hidden"]


@dataclass(frozen=True)
class Cut:
    """Which internal tensor of the transformer becomes the descriptors."""

    block: int
    """From 0. Keys and queries are those of its self-attention, hidden states what it puts out."""
    heads: tuple[int, ...]
    """In the order wanted. Of hidden states, the parts of the width that heads would have."""
    channels: tuple[int, ...]
    """Kept of each head, rising."""
    described: int
    """Latent frames at the end of the window that are read; earlier ones are context."""
    tensor: TensorName = "keys"
    rotated: bool = True
    """Keys and queries after the rotary embedding, or before it."""


@dataclass(frozen=True)
class Denoising:
    """One denoising step: the transformer sees signal x latents + noise x seeded noise."""

    timestep: float
    """What the transformer is told of the noise."""
    signal: float
    noise: float
    seed: int

    def noised(self, latents: Tensor) -> Tensor:
        """Mix latents [1, C, T, h, w] with their noise."""
        return self.signal * latents + self.noise * seeded_noise(latents.shape, self.seed)


def seeded_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal noise, float32, the same on every machine for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
