"""What is trained and on which losses: reconstruction, flow matching, finding known points."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vditrack.coordinates import cells_from_pixels
from vditrack.synthetic.layers.clips import SyntheticClip
from vditrack_export.families.rotary import low_frequency_channels, wan_rotary_axes
from vditrack_export.families.tiny.autoencoder import TinyEncoder
from vditrack_export.tiny.losses import (
    bilinear_target,
    matching_loss,
    noised,
    pair_cosines,
)
from vditrack_export.tiny.model import (
    BUNDLED,
    STRIDE,
    WINDOW,
    Decoder,
    Shape,
    new_transformer,
    normed_keys,
    prompt,
    rotated,
)

BLOCK = 1
FREQUENCIES = (0.4, 1.0)
MATCHING_WEIGHT, HIDDEN_WEIGHT = 0.5, 0.125
LOW_SIGMA = 0.15
"""Keys are trained at noise levels up to this; they are read at a third of it."""
DENOISED = 4
"""One window in so many is denoised: that takes all blocks, where keys take the first."""
DECODER_NOISE = 0.1
NO_MATCH = 1.0
"""The cosine that stands for "nowhere" at the start, when all are near one; it is learnt."""


class Losses(NamedTuple):
    """Means over a batch."""

    reconstruction: Tensor
    denoising: Tensor
    matching: Tensor
    """Over points that are seen in both frames."""
    hidden: Tensor
    """The same over those that are seen in the first alone."""

    def weighted(self) -> Tensor:
        """Return what is minimised."""
        found = MATCHING_WEIGHT * self.matching + HIDDEN_WEIGHT * self.hidden
        return self.reconstruction + self.denoising + found


class Recipe(nn.Module):
    """All that is trained."""

    def __init__(self, shape: Shape = BUNDLED) -> None:
        super().__init__()
        self.encoder = TinyEncoder(shape.latents, shape.widths)
        self.decoder = Decoder(shape.latents)
        self.transformer = new_transformer(shape)
        self.no_match = nn.Parameter(torch.tensor(NO_MATCH))
        self._channels = low_frequency_channels(wan_rotary_axes(shape.head_dim), FREQUENCIES)

    def forward(self, clips: Sequence[SyntheticClip], generator: torch.Generator) -> Losses:
        """Losses of a batch of four-frame clips, each run as two windows of two frames."""
        frames = images(np.concatenate([clip.frames for clip in clips]))
        latents = self.encoder(frames)
        # Noise keeps the encoder from hiding detail in digits that diffusion would drown.
        jitter = DECODER_NOISE * torch.randn(latents.shape, generator=generator)
        reconstruction = (self.decoder(latents + jitter).float() - frames).abs().mean()
        windows = as_windows(latents)
        few = windows[::DENOISED]
        denoising = self.denoising(few, _levels(len(few), generator), generator)
        low = LOW_SIGMA * _levels(len(windows), generator)
        descriptors = self.describe(windows, low, generator)
        by_clip = descriptors.reshape(len(clips), -1, *descriptors.shape[2:])
        # Cosines rounded to half precision would be off by a tenth of the temperature.
        with torch.autocast("cpu", enabled=False):
            matching, hidden = self.finding(by_clip, clips)
        return Losses(reconstruction, denoising.mean(), matching, hidden)

    def describe(self, windows: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Return what tracking reads of latents [B, C, T, rows, columns] noised to levels [B].

        Returns:
            [B, T, rows, columns, D]

        """
        mixed = noised(windows, torch.randn(windows.shape, generator=generator), sigma)
        normed = normed_keys(self.transformer, BLOCK, mixed, 1000 * sigma)
        keys = rotated(self.transformer, normed, mixed)[..., self._channels]
        return keys.reshape(len(windows), *windows.shape[2:], -1)

    def denoising(self, windows: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Flow-matching loss [B] of latents [B, C, T, rows, columns] noised to levels [B].

        The latents are a fixed target here: their gradient would teach the encoder to make them
        empty.
        """
        noise = torch.randn(windows.shape, generator=generator)
        mixed = noised(windows, noise, sigma)
        velocity = self.transformer(mixed, 1000 * sigma, prompt(len(mixed))).sample
        error: Tensor = velocity.float() - (noise - windows.detach())
        return error.square().mean(dim=(1, 2, 3, 4))

    def finding(self, descriptors: Tensor, clips: Sequence[SyntheticClip]) -> tuple[Tensor, Tensor]:
        """Mean losses of seeking every point of every frame in all other frames of its clip.

        Args:
            descriptors: [clips, frames, rows, columns, D].
            clips: as many, with equally many points.

        Returns:
            Where the point is seen, and where it is hidden.

        """
        rows, columns = descriptors.shape[2:4]
        cells = torch.from_numpy(
            np.stack([cells_from_pixels(clip.points, STRIDE) for clip in clips])
        )
        visible = torch.from_numpy(np.stack([clip.visible for clip in clips])).transpose(1, 2)
        cosines = pair_cosines(descriptors, cells)
        others = ~torch.eye(visible.shape[1], dtype=torch.bool)[None, :, :, None]
        sought = visible[:, :, None] & others
        seen, hidden = sought & visible[:, None], sought & ~visible[:, None]
        targets = cells.transpose(1, 2)[:, None].expand(*seen.shape, 2)[seen]
        wanted = bilinear_target(targets, rows, columns)
        nowhere = wanted.new_zeros(int(hidden.sum()), rows * columns)
        return (
            _mean(matching_loss(cosines[seen], wanted, self.no_match)),
            _mean(matching_loss(cosines[hidden], nowhere, self.no_match)),
        )


def images(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Turn frames uint8 [B, H, W, 3] into the encoder's input, float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_windows(latents: Tensor) -> Tensor:
    """Join each two latents [2 B, C, rows, columns] to one window [B, C, 2, rows, columns]."""
    return latents.view(-1, WINDOW, *latents.shape[1:]).transpose(1, 2)


def _levels(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


def _mean(losses: Tensor) -> Tensor:
    """Mean, or zero of none."""
    return losses.sum() / max(len(losses), 1)
