"""Which tensor of a model is read, and at which denoising step."""

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
    """Which internal tensor of the model becomes the descriptors."""

    block: int
    """Block, from 0. Keys and queries are its self-attention's, hidden states its output."""
    heads: tuple[int, ...]
    """Heads, in the order of the descriptor. Hidden states are divided into heads likewise."""
    channels: tuple[int, ...]
    """Channels kept of each head, rising."""
    described: int
    """Number of latent frames at the end of the window that are read; earlier ones are context."""
    tensor: TensorName = "keys"
    rotated: bool = True
    """Whether keys and queries are read after the rotary embedding."""


@dataclass(frozen=True)
class Denoising:
    """One denoising step: the model's input is signal * latents + noise * seeded noise."""

    timestep: float
    """Timestep input of the model."""
    signal: float
    noise: float
    seed: int
    chunk: int | None = None
    """Latents after which the noise repeats; None if every latent has noise of its own."""

    def noised(self, latents: Tensor) -> Tensor:
        """Return latents [1, C, T, h, w] with their noise."""
        noise = self.draw_noise(latents.shape[1:])
        repeated = noise.repeat(1, 1, latents.shape[2] // noise.shape[2], 1, 1)
        return self.signal * latents + repeated

    def draw_noise(self, shape: Sequence[int]) -> Tensor:
        """Return the noise of latents of shape [C, T, h, w]; of one chunk if it repeats."""
        channels, frames, *sides = shape
        return self.noise * seeded_noise((1, channels, self.chunk or frames, *sides), self.seed)


def seeded_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Draw standard normal noise, float32, the same on every machine for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
