"""Camera frames as the clip that a video autoencoder takes."""

import torch
from torch import Tensor


def as_clip(frames: Tensor) -> Tensor:
    """Map uint8 [F, H, W, 3] RGB to float32 [1, 3, F, H, W] in [-1, 1]."""
    # Cast before the transpose: TensorRT cannot transpose uint8.
    return frames.to(torch.float32).permute(3, 0, 1, 2)[None] / 127.5 - 1
