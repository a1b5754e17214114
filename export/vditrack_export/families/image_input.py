"""Camera frames as the images that an encoder of single frames takes."""

import torch
from torch import Tensor, nn


def as_images(frames: Tensor) -> Tensor:
    """Map uint8 [F, H, W, 3] RGB to float32 [F, 3, H, W] in [-1, 1]."""
    # Cast before the transpose: TensorRT cannot transpose uint8.
    return frames.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1


class FramesToLatents(nn.Module):
    """Maps frames, uint8 [F, H, W, 3] RGB, to latents, float32 [1, C, F, h, w].

    Args:
        encoder: Maps images, float32 [F, 3, H, W] in [-1, 1], to latents, float32 [F, C, h, w].

    """

    def __init__(self, encoder: nn.Module) -> None:
        """Wrap the encoder."""
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor) -> Tensor:
        """Encode uint8 [F, H, W, 3] RGB."""
        latents: Tensor = self.encoder(as_images(frames))
        return latents.transpose(0, 1).unsqueeze(0)
