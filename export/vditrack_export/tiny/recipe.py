"""What is trained and on which losses: reconstruction, flow matching, matching of known points."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vditrack.grid import cells_from_pixels
from vditrack.synthetic.clips import SyntheticClip
from vditrack_export.frequencies import low_frequency_channels, wan_rotary_axes
from vditrack_export.tiny.losses import matching_loss, noised
from vditrack_export.tiny.model import (
    HEAD_DIM,
    STRIDE,
    WINDOW,
    Decoder,
    TinyEncoder,
    catch_keys,
    new_transformer,
    prompt,
    rotated,
)

BLOCK = 1
FREQUENCIES = (0.4, 1.0)
MATCHING_WEIGHT = 0.5
MATCHING_MAX_SIGMA = 0.8
LOW_SIGMA = 0.2
DECODER_NOISE = 0.1


class Losses(NamedTuple):
    """Means over a batch."""

    reconstruction: Tensor
    denoising: Tensor
    matching: Tensor

    def weighted(self) -> Tensor:
        """Return what is minimised."""
        return self.reconstruction + self.denoising + MATCHING_WEIGHT * self.matching


class Denoised(NamedTuple):
    """One run of the transformer."""

    velocity: Tensor
    """Predicted noise minus latents, [B, C, T, rows, columns]."""
    noise: Tensor
    descriptors: Tensor
    """[B, T, rows, columns, D]: what tracking reads."""


class Recipe(nn.Module):
    """All that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.transformer = TinyEncoder(), Decoder(), new_transformer()
        self._channels = low_frequency_channels(wan_rotary_axes(HEAD_DIM), FREQUENCIES)

    def forward(self, clips: list[SyntheticClip], generator: torch.Generator) -> Losses:
        """Losses of a batch of four-frame clips, each run as two windows of two frames."""
        frames = images(np.concatenate([clip.frames for clip in clips]))
        latents = self.encoder(frames)
        # Noise keeps the encoder from hiding detail in digits that diffusion would drown.
        jitter = DECODER_NOISE * torch.randn(latents.shape, generator=generator)
        reconstruction = (self.decoder(latents + jitter).float() - frames).abs().mean()
        windows = as_windows(latents)
        sigma = noise_levels(len(windows), generator)
        run = self.denoise(windows, sigma, generator)
        matching = clip_matching_loss(
            run.descriptors.reshape(len(clips), -1, *run.descriptors.shape[2:]),
            clips,
            sigma.view(len(clips), -1),
        )
        return Losses(reconstruction, denoising_loss(run, windows).mean(), matching)

    def denoise(self, windows: Tensor, sigma: Tensor, generator: torch.Generator) -> Denoised:
        """Run the transformer on latents [B, C, T, rows, columns] noised to levels [B]."""
        noise = torch.randn(windows.shape, generator=generator)
        mixed = noised(windows, noise, sigma)
        with catch_keys(self.transformer, BLOCK) as caught:
            velocity = self.transformer(mixed, 1000 * sigma, prompt(len(mixed))).sample
        keys = rotated(self.transformer, caught.normed, mixed)[..., self._channels]
        descriptors = keys.reshape(len(windows), *windows.shape[2:], -1)
        return Denoised(velocity.float(), noise, descriptors)


def images(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Turn frames uint8 [B, H, W, 3] into the encoder's input, float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_windows(latents: Tensor) -> Tensor:
    """Join each two latents [2 B, C, rows, columns] to one window [B, C, 2, rows, columns]."""
    return latents.view(-1, WINDOW, *latents.shape[1:]).transpose(1, 2)


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """Half of them over (0, 1), half near the low level at which keys are read."""
    level = torch.rand(count, generator=generator)
    low = torch.rand(count, generator=generator) < 0.5
    return torch.where(low, LOW_SIGMA * level, level)


def denoising_loss(run: Denoised, windows: Tensor) -> Tensor:
    """Flow-matching loss [B] of a run on ``windows``.

    The latents are a fixed target here: their gradient would teach the encoder to make them empty.
    """
    error = run.velocity - (run.noise - windows.detach())
    return (error**2).mean(dim=(1, 2, 3, 4))


def clip_matching_loss(descriptors: Tensor, clips: list[SyntheticClip], sigma: Tensor) -> Tensor:
    """Mean matching loss over all ordered pairs of frames of every clip.

    Args:
        descriptors: [clips, frames, rows, columns, D].
        clips: as many.
        sigma: [clips, windows]; pairs with a window noised too far are left out.

    """
    losses = []
    for maps, clip, levels in zip(descriptors, clips, sigma, strict=True):
        cells = torch.from_numpy(cells_from_pixels(clip.points, STRIDE))
        visible = torch.from_numpy(clip.visible)
        readable = [i for i in range(len(maps)) if levels[i // WINDOW] < MATCHING_MAX_SIGMA]
        for i in readable:
            for j in readable:
                both = visible[:, i] & visible[:, j]
                if i != j and both.any():
                    losses.append(matching_loss(maps[i], maps[j], cells[both, i], cells[both, j]))
    return torch.cat(losses).mean() if losses else descriptors.sum() * 0
