"""The encoder of the bundled model."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vditrack_export.families.tiny.shapes import FIRST_STRIDE

WEIGHTS_FILE, SHAPE_FILE = "encoder.safetensors", "encoder.json"


CONTEXT_RESIDUALS = 2


class _Convolution(nn.Sequential):
    """A convolution with a normalisation that evaluation folds into its weights."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        padding = (kernel - stride + 1) // 2
        super().__init__(
            nn.Conv2d(before, after, kernel, stride, padding, bias=False), nn.BatchNorm2d(after)
        )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _Convolution(width, width, 3)
        self.second = _Convolution(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.first(x))
        return functional.relu(x + torch.as_tensor(self.second(inner)))


def _build_level(before: int, after: int, stride: int, residuals: int) -> nn.Sequential:
    # Kernels overlap by half.
    shrink = _Convolution(before, after, 2 * stride, stride)
    return nn.Sequential(shrink, nn.ReLU(), *(_Residual(after) for _ in range(residuals)))


class TinyEncoder(nn.Module):
    """Encodes single frames to latents of zero mean and unit variance.

    Its layers are those that a CPU runs fast in INT8: convolutions and rectifiers.

    Args:
        latents: Channels of the latents.
        widths: Channels at a quarter of the picture's size, and after each halving from there down
            to the cells of the latents.
        residuals: Residual layers at each of these sizes.
        context: Channels after each further halving. What is found there, about larger parts of
            the picture, is added to the cells.

    """

    def __init__(
        self,
        latents: int,
        widths: tuple[int, ...],
        residuals: tuple[int, ...],
        context: tuple[int, ...],
    ) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.shape = {
            "latents": latents,
            "widths": widths,
            "residuals": residuals,
            "context": context,
        }
        strides = (FIRST_STRIDE, *(2 for _ in widths[1:]))
        sizes = zip((3, *widths[:-1]), widths, strides, residuals, strict=True)
        self.levels = nn.Sequential(*(_build_level(*each) for each in sizes))
        width = widths[-1]
        coarser = zip((width, *context[:-1]), context, strict=False)
        self.context = nn.ModuleList(_build_level(*each, 2, CONTEXT_RESIDUALS) for each in coarser)
        finer = (width, *context[:-1])
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for coarse, fine in zip(context, finer, strict=False)
        )
        self.merge = _Residual(width)
        self.head = nn.Conv2d(width, latents, 1)
        # Its running statistics become constants in evaluation, so nothing depends on the data.
        self.norm = nn.BatchNorm2d(latents, affine=False, momentum=0.01)

    def describe(self, frames: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] in [-1, 1] to what the head reads, [B, widths[-1], h, w]."""
        levels = [self.levels(frames)]
        for level in self.context:
            levels.append(level(levels[-1]))
        found = levels.pop()
        for lateral in reversed(self.lateral):
            finer = levels.pop()
            found = finer + functional.interpolate(lateral(found), size=finer.shape[-2:])
        return torch.as_tensor(self.merge(found))

    def forward(self, frames: Tensor) -> Tensor:
        """Map float32 [B, 3, H, W] in [-1, 1] to float32 [B, latents, h, w]."""
        latents: Tensor = self.norm(self.head(self.describe(frames)).float())
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
        sizes = (tuple(shape[name]) for name in ("widths", "residuals", "context"))
        encoder = cls(shape["latents"], *sizes)
        encoder.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return encoder.eval()
