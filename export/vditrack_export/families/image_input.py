"""The encoder's graph: from camera frames to latents, normalisation inside."""

import torch
from torch import Tensor, nn


class FramesToLatents(nn.Module):
    """Frames, uint8 [F, H, W, 3] RGB, to latents, float32 [1, C, F, h, w].

    Args:
        encoder: maps images, float32 [F, 3, H, W] in [-1, 1], to latents, float32 [F, C, h, w].

    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor) -> Tensor:
        # Real numbers first: TensorRT moves no bytes about.
        images = frames.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1
        latents: Tensor = self.encoder(images)
        return latents.transpose(0, 1).unsqueeze(0)
