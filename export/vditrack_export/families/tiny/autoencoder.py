"""The encoder of the bundled model."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS_FILE, SHAPE_FILE = "encoder.safetensors", "encoder.json"


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(functional.silu(x))
        return x + torch.as_tensor(self.second(functional.silu(inner)))


class TinyEncoder(nn.Module):
    """Encodes single frames to latents of zero mean and unit variance.

    Args:
        latents: Channels of the latents; the default is that of the bundled model.
        widths: Channels after each halving of the picture, likewise.

    """

    def __init__(self, latents: int = 48, widths: tuple[int, ...] = (32, 64, 192)) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.shape = {"latents": latents, "widths": list(widths)}
        levels: list[nn.Module] = []
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            levels += [nn.Conv2d(before, after, 4, stride=2, padding=1), _Residual(after)]
        self.levels = nn.Sequential(*levels)
        self.head = nn.Conv2d(widths[-1], latents, 1)
        # Its running statistics become constants in evaluation, so nothing depends on the data.
        self.norm = nn.BatchNorm2d(latents, affine=False, momentum=0.01)

    def forward(self, frames: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] in [-1, 1] to float32 [B, latents, h, w]."""
        latents: Tensor = self.norm(self.head(self.levels(frames)).float())
        return latents

    def save(self, folder: Path) -> None:
        """Write weights and shape into an existing folder."""
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        (folder / SHAPE_FILE).write_text(json.dumps(self.shape) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "TinyEncoder":
        """Read what `save` wrote, ready for evaluation."""
        shape = json.loads((folder / SHAPE_FILE).read_text())
        encoder = cls(shape["latents"], tuple(shape["widths"]))
        encoder.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return encoder.eval()
