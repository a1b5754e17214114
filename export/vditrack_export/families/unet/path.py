"""A UNet from its first convolution to the end of one layer of its decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from vditrack_export.families.unet.layers import SpatialTransformer

LayerSteps = Callable[[nn.Module, int], Iterable[nn.Module]]
"""Yields the modules of one layer, from its block and its index in the block."""


class UNetWalk(nn.Module):
    """Maps frames [F, C, h, w], after the first convolution, to hidden states of the decoder.

    Args:
        model: The whole UNet.
        steps: Yields the modules of a layer.
        resized: Returns the module in place of a block's down- or upsampler.
        last: Last layer of the decoder that is kept, from 0. The last one of a level includes the
            upsampling.

    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        steps: LayerSteps,
        resized: Callable[[nn.Module], nn.Module],
        last: int,
    ) -> None:
        """Take the layers up to the last one, and leave out all others."""
        super().__init__()
        self.down: Iterable[Any] = nn.ModuleList(
            _build_level(block, steps, len(block.resnets), map(resized, block.downsamplers or ()))
            for block in model.down_blocks
        )
        self.middle = _build_level(model.mid_block, steps, len(model.mid_block.resnets))
        levels, layers = divmod(last + 1, len(model.up_blocks[0].resnets))
        up = [
            _build_level(block, steps, len(block.resnets), map(resized, block.upsamplers or ()))
            for block in model.up_blocks[:levels]
        ]
        if layers:
            up.append(_build_level(model.up_blocks[levels], steps, layers))
        self.up: Iterable[Any] = nn.ModuleList(up)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Run the layers; ``added`` are context tokens of spatial attention beside constants."""
        skipped = [x]
        for level in self.down:
            for layer in level.layers:
                x = layer(x, added)
                skipped.append(x)
            if level.resize is not None:
                x = level.resize(x)
                skipped.append(x)
        for layer in self.middle.layers:
            x = layer(x, added)
        for level in self.up:
            for layer in level.layers:
                x = layer(torch.cat((x, skipped.pop()), dim=1), added)
            if isinstance(level.resize, Upsample2D):
                # An odd side is not doubled: it returns to the size that it had.
                x = level.resize(x, skipped[-1].shape[-2:])
            elif level.resize is not None:
                x = level.resize(x)
        return x


class _Level(nn.Module):
    def __init__(self, layers: Iterable[nn.Module], resize: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.resize = resize


class _Layer(nn.Module):
    def __init__(self, steps: Iterable[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor, added: Tensor | None) -> Tensor:
        for step in self.steps:
            x = step(x, added) if isinstance(step, SpatialTransformer) else step(x)
        return x


def _build_level(
    block: Any,  # noqa: ANN401
    steps: LayerSteps,
    layers: int,
    resized: Iterable[nn.Module] = (),
) -> _Level:
    """Return the first layers of a block; ``resized`` is one module, or none."""
    chosen = [_Layer(steps(block, index)) for index in range(layers)]
    return _Level(chosen, next(iter(resized), None))


def layer_part(block: Any, name: str, index: int) -> list[Any]:  # noqa: ANN401
    """Return the layer's entry in a block's list of that name, as a list of one or none."""
    return list(getattr(block, name, ())[index : index + 1])


def last_frames(hidden: Tensor, count: int) -> Tensor:
    """Return hidden states [F, D, rows, columns] of the last frames: [count, rows, columns, D]."""
    return hidden[-count:].permute(0, 2, 3, 1)
