"""The trained modules and their losses: reconstruction, flow matching and point matching."""

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
    compare_frames,
    matching_loss,
    mix_noise,
)
from vditrack_export.tiny.model import (
    BUNDLED,
    STRIDE,
    WINDOW,
    Decoder,
    Shape,
    build_transformer,
    make_empty_prompt,
    read_normed_keys,
    rotate_keys,
)

BLOCK = 1
FREQUENCIES = (0.4, 1.0)
MATCHING_WEIGHT, HIDDEN_WEIGHT = 0.5, 0.125
LOW_SIGMA = 0.15
"""Keys are trained at noise levels up to this one, and read at a third of it."""
DENOISED = 4
"""Every fourth window is denoised, because that runs all blocks, and keys only the first."""
DECODER_NOISE = 0.1
NO_MATCH = 1.0
"""The initial value of the learnt cosine that stands for "nowhere"; all cosines begin near 1."""


class Losses(NamedTuple):
    """The losses, averaged over a batch."""

    reconstruction: Tensor
    denoising: Tensor
    matching: Tensor
    """The matching loss of points that are visible in both frames."""
    hidden: Tensor
    """The matching loss of points that are visible in the first frame alone."""

    def weighted(self) -> Tensor:
        """Return the weighted sum that is minimised."""
        found = MATCHING_WEIGHT * self.matching + HIDDEN_WEIGHT * self.hidden
        return self.reconstruction + self.denoising + found


class Recipe(nn.Module):
    """The encoder, decoder and transformer, with their losses."""

    def __init__(self, shape: Shape = BUNDLED) -> None:
        """Build the modules with random weights."""
        super().__init__()
        self.encoder = TinyEncoder(shape.latents, shape.widths)
        self.decoder = Decoder(shape.latents)
        self.transformer = build_transformer(shape)
        self.no_match = nn.Parameter(torch.tensor(NO_MATCH))
        self._channels = low_frequency_channels(wan_rotary_axes(shape.head_dim), FREQUENCIES)

    def forward(self, clips: Sequence[SyntheticClip], generator: torch.Generator) -> Losses:
        """Return the losses of four-frame clips, each encoded as two windows of two frames."""
        frames = to_images(np.concatenate([clip.frames for clip in clips]))
        latents = self.encoder(frames)
        # Noise keeps the encoder from storing detail in differences that diffusion noise hides.
        jitter = DECODER_NOISE * torch.randn(latents.shape, generator=generator)
        reconstruction = (self.decoder(latents + jitter).float() - frames).abs().mean()
        windows = join_windows(latents)
        few = windows[::DENOISED]
        denoising = self.denoising(few, _draw_levels(len(few), generator), generator)
        low = LOW_SIGMA * _draw_levels(len(windows), generator)
        descriptors = self.describe(windows, low, generator)
        by_clip = descriptors.reshape(len(clips), -1, *descriptors.shape[2:])
        # Cosines rounded to half precision would be off by a tenth of the temperature.
        with torch.autocast("cpu", enabled=False):
            matching, hidden = self.match_all_frames(by_clip, clips)
        return Losses(reconstruction, denoising.mean(), matching, hidden)

    def describe(self, windows: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Return the descriptors of latents [B, C, T, rows, columns] at noise levels [B].

        Returns:
            [B, T, rows, columns, D]

        """
        mixed = mix_noise(windows, torch.randn(windows.shape, generator=generator), sigma)
        normed = read_normed_keys(self.transformer, BLOCK, mixed, 1000 * sigma)
        keys = rotate_keys(self.transformer, normed, mixed)[..., self._channels]
        return keys.reshape(len(windows), *windows.shape[2:], -1)

    def denoising(self, windows: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Return the flow-matching loss [B] of latents [B, C, T, rows, columns] at levels [B].

        The target is detached, because its gradient would make the encoder's latents constant.
        """
        noise = torch.randn(windows.shape, generator=generator)
        mixed = mix_noise(windows, noise, sigma)
        velocity = self.transformer(mixed, 1000 * sigma, make_empty_prompt(len(mixed))).sample
        error: Tensor = velocity.float() - (noise - windows.detach())
        return error.square().mean(dim=(1, 2, 3, 4))

    def match_all_frames(
        self, descriptors: Tensor, clips: Sequence[SyntheticClip]
    ) -> tuple[Tensor, Tensor]:
        """Return the mean losses of matching every point of every frame in all other frames.

        Args:
            descriptors: [clips, frames, rows, columns, D].
            clips: the clips, with equally many points.

        Returns:
            The loss of points that are visible in the searched frame, and of hidden ones.

        """
        rows, columns = descriptors.shape[2:4]
        cells = torch.from_numpy(
            np.stack([cells_from_pixels(clip.points, STRIDE) for clip in clips])
        )
        visible = torch.from_numpy(np.stack([clip.visible for clip in clips])).transpose(1, 2)
        cosines = compare_frames(descriptors, cells)
        others = ~torch.eye(visible.shape[1], dtype=torch.bool)[None, :, :, None]
        sought = visible[:, :, None] & others
        seen, hidden = sought & visible[:, None], sought & ~visible[:, None]
        targets = cells.transpose(1, 2)[:, None].expand(*seen.shape, 2)[seen]
        wanted = bilinear_target(targets, rows, columns)
        nowhere = wanted.new_zeros(int(hidden.sum()), rows * columns)
        return (
            _mean_or_zero(matching_loss(cosines[seen], wanted, self.no_match)),
            _mean_or_zero(matching_loss(cosines[hidden], nowhere, self.no_match)),
        )


def to_images(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Convert frames uint8 [B, H, W, 3] to the encoder's input, float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def join_windows(latents: Tensor) -> Tensor:
    """Join pairs of latents [2 B, C, rows, columns] to windows [B, C, 2, rows, columns]."""
    return latents.view(-1, WINDOW, *latents.shape[1:]).transpose(1, 2)


def _draw_levels(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


def _mean_or_zero(losses: Tensor) -> Tensor:
    """Return the mean, or zero if there are no losses."""
    return losses.sum() / max(len(losses), 1)
