"""A student: the bundled model's architecture, and what it is trained to do."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vditrack.arrays import Image
from vditrack.coordinates import cells_from_pixels
from vditrack_export.families.rotary import low_frequency_channels, wan_rotary_axes
from vditrack_export.families.tiny.autoencoder import TinyEncoder
from vditrack_export.tiny.batches import Batch
from vditrack_export.tiny.losses import (
    Softness,
    hint_loss,
    known_motion_losses,
    mix_noise,
    teacher_matching_loss,
)
from vditrack_export.tiny.model import (
    STRIDE,
    Shape,
    build_transformer,
    make_empty_prompt,
    read_normed_keys,
    rotate_keys,
)

BLOCK = 0
FREQUENCIES = (0.4, 1.0)
"""The channels of keys that are descriptors, by rotary frequency."""
SIGMA = 0.05
"""The noise level at which descriptors are read."""
LOW_SIGMA = 0.15
"""Keys are trained at noise levels up to this one."""
DENOISED = 16
"""Every sixteenth frame is denoised, because that runs all blocks, and keys only the first."""
WEIGHTS = {"matching": 0.3, "hidden": 0.1, "teacher": 1.0, "hint": 1.0, "denoising": 0.1}
"""Weights of the losses in their sum."""
SEARCHED = 128
"""Cells of each frame whose matches are compared with the teacher's."""
WINDOW = 2
"""Frames of a clip that show the same moment; the teacher's matches among them are learnt."""


class Losses(NamedTuple):
    """The losses, averaged over a batch."""

    matching: Tensor
    """Known motion: points that are visible in both frames."""
    hidden: Tensor
    """Known motion: points that are visible in the first frame alone."""
    teacher: Tensor
    """Divergence from the teacher's matches."""
    hint: Tensor
    """1 minus the cosine of the teacher's descriptors and those regressed from the encoder."""
    denoising: Tensor
    """Flow matching."""

    def weighted(self) -> Tensor:
        """Return the weighted sum that is minimised."""
        parts = [WEIGHTS[name] * part for name, part in self._asdict().items()]
        return torch.stack(parts).sum()


class Student(nn.Module):
    """Encoder and transformer of a student, with what only training needs."""

    def __init__(self, shape: Shape, teacher_channels: int) -> None:
        """Build the modules with random weights.

        Args:
            shape: the sizes of encoder and transformer.
            teacher_channels: channels of the teacher's descriptors.

        """
        super().__init__()
        self.encoder = TinyEncoder(shape.latents, shape.widths, shape.residuals, shape.context)
        self.transformer = build_transformer(shape)
        self.hint = nn.Conv2d(shape.widths[-1], teacher_channels, 1)
        # All cosines begin near 1.
        self.no_match = nn.Parameter(torch.tensor(1.0))
        self.teacher_no_match = nn.Parameter(torch.tensor(1.0))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.05)))
        self._channels = low_frequency_channels(wan_rotary_axes(shape.head_dim), FREQUENCIES)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the head reads, [B, width, h, w], and latents, float32 [B, C, h, w]."""
        found = self.encoder.describe(frames)
        return found, self.encoder.norm(self.encoder.head(found).float())

    def describe(self, latents: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Return the descriptors of latents [B, C, h, w] at noise levels [B]: [B, h, w, D]."""
        single = latents[:, :, None]
        mixed = mix_noise(single, _draw_noise(single, generator), sigma)
        normed = read_normed_keys(self.transformer, BLOCK, mixed, 1000 * sigma)
        keys = rotate_keys(self.transformer, normed, mixed)[..., self._channels]
        return keys.reshape(len(latents), *latents.shape[2:], -1)

    def denoise(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean flow-matching loss of latents [B, C, h, w] at all noise levels.

        Latents are detached: the gradient of the target would make them constant.
        """
        sigma = torch.rand(len(latents), generator=generator).to(latents.device)
        return self.denoising(latents, sigma, generator).mean()

    def denoising(self, latents: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Return the flow-matching loss [B] of latents [B, C, h, w] at noise levels [B]."""
        single = latents.detach()[:, :, None]
        noise = _draw_noise(single, generator)
        prompt = make_empty_prompt(len(single), single.device)
        mixed = mix_noise(single, noise, sigma)
        velocity = self.transformer(mixed, 1000 * sigma, prompt).sample
        error: Tensor = velocity.float() - (noise - single)
        return error.square().mean(dim=(1, 2, 3, 4))

    def forward(self, batch: Batch, taught: Softness, generator: torch.Generator) -> Losses:
        """Return the losses of a batch.

        Args:
            batch: the clips; the motion of its first ones is known, and of its last ones the
                teacher's descriptors are.
            taught: the teacher's temperature and "nowhere".
            generator: the source of noise, on the CPU.

        """
        device = self.no_match.device
        with torch.autocast(device.type, torch.bfloat16):
            frames = to_images(batch.frames.reshape(-1, *batch.frames.shape[2:]), device)
            found, latents = self.encode(frames)
            low = LOW_SIGMA * torch.rand(len(latents), generator=generator).to(device)
            descriptors = self.describe(latents, low, generator).float()
            denoising = self.denoise(latents[::DENOISED], generator)
            regressed = self.hint(found).float().permute(0, 2, 3, 1)
        # Cosines rounded to half precision would be off by a tenth of the temperature.
        clips = len(batch.frames)
        by_clip = descriptors.reshape(clips, -1, *descriptors.shape[1:])
        matching, hidden = self._match_known(by_clip, batch)
        teacher = torch.from_numpy(batch.teacher).to(device).float()
        regressed = regressed.reshape(clips, -1, *regressed.shape[1:])[-len(teacher) :]
        return Losses(
            matching,
            hidden,
            self._match_as_teacher(by_clip[-len(teacher) :], teacher, taught, generator),
            hint_loss(regressed, teacher),
            denoising,
        )

    def _match_known(self, descriptors: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        device = descriptors.device
        cells = torch.from_numpy(cells_from_pixels(batch.points, STRIDE)).to(device)
        visible = torch.from_numpy(batch.visible).to(device)
        return known_motion_losses(descriptors[: len(cells)], cells, visible, self.no_match)

    def _match_as_teacher(
        self, descriptors: Tensor, teacher: Tensor, taught: Softness, generator: torch.Generator
    ) -> Tensor:
        """Compare the matches among the frames of each window with the teacher's."""
        ours = functional.normalize(descriptors, dim=-1)
        ours, teacher = (each.reshape(-1, WINDOW, *each.shape[2:]) for each in (ours, teacher))
        count = teacher.shape[2] * teacher.shape[3]
        cells = torch.randint(count, (SEARCHED,), generator=generator).to(teacher.device)
        soft = Softness(self.log_temperature.exp(), self.teacher_no_match)
        return teacher_matching_loss(ours, teacher, soft, taught, cells)


def to_images(frames: Image, device: torch.device | None = None) -> Tensor:
    """Convert frames uint8 [B, H, W, 3] to the encoder's input, float32 [B, 3, H, W] in [-1, 1]."""
    pictures = torch.from_numpy(np.array(frames)).to(device)
    images = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.to(memory_format=torch.channels_last)


def _draw_noise(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Draw noise on the CPU, so that it is the same on every device."""
    return torch.randn(latents.shape, generator=generator).to(latents.device)
