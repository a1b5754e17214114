"""TAEHV evaluated frame by frame from the weights of a file, by the numbers of its layers.

Written from the description of the network and independent of the exporter's: every frame of every
layer is computed from the frames that it is defined by, without groups and caches.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
WIDE, DECODER = 64, (256, 128, 64, 64)


def taehv_weights(
    channels: int, patch: int = 1, pooled: Sequence[int] = (2, 2, 1), seed: int = 0
) -> Weights:
    """Return random weights with the names and shapes of a published file, decoder included."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def conv(name: str, entering: int, leaving: int, kernel: int = 3, bias: bool = True) -> None:
        scale = (2 / (entering * kernel**2)) ** 0.5
        shape = leaving, entering, kernel, kernel
        weights[f"{name}.weight"] = scale * torch.randn(shape, generator=generator)
        if bias:
            weights[f"{name}.bias"] = 0.1 * torch.randn(leaving, generator=generator)

    def memory_block(name: str, wide: int) -> None:
        conv(f"{name}.conv.0", 2 * wide, wide)
        conv(f"{name}.conv.2", wide, wide)
        conv(f"{name}.conv.4", wide, wide)

    conv("encoder.0", 3 * patch**2, WIDE)
    for level, frames in enumerate(pooled):
        first = 2 + 5 * level
        conv(f"encoder.{first}.conv", frames * WIDE, WIDE, kernel=1, bias=False)
        conv(f"encoder.{first + 1}", WIDE, WIDE, bias=False)
        for block in range(first + 2, first + 5):
            memory_block(f"encoder.{block}", WIDE)
    conv("encoder.17", WIDE, channels)
    conv("decoder.1", channels, DECODER[0])
    # The decoder grows frames in the reverse order.
    for level, frames in enumerate(reversed(pooled)):
        first, wide = 3 + 6 * level, DECODER[level]
        for block in range(first, first + 3):
            memory_block(f"decoder.{block}", wide)
        conv(f"decoder.{first + 4}.conv", wide, frames * wide, kernel=1, bias=False)
        conv(f"decoder.{first + 5}", wide, DECODER[level + 1], bias=False)
    conv("decoder.22", DECODER[3], 3 * patch**2)
    return weights


def encode_video(weights: Weights, frames: Tensor) -> Tensor:
    """Encode uint8 [F, H, W, 3] as TAEHV does: groups of frames, the last one repeated.

    Returns:
        Latents, float32 [groups, C, h, w].

    """
    pixels = frames.permute(0, 3, 1, 2).float() / 255
    patch = round((weights["encoder.0.weight"].shape[1] / 3) ** 0.5)
    pixels = F.pixel_unshuffle(pixels, patch)
    strides = {
        index: weights[f"encoder.{index}.conv.weight"].shape[1] // WIDE for index in (2, 7, 12)
    }
    group = strides[2] * strides[7] * strides[12]

    @cache
    def frame(layer: int, time: int) -> Tensor:
        """Return what a layer gives at a time, in frames of that layer."""
        if layer < 0:
            return pixels[min(time, len(pixels) - 1)][None]
        name = f"encoder.{layer}"
        if layer == 1:
            return F.relu(frame(0, time))
        if layer in strides:
            span = range(time * strides[layer], (time + 1) * strides[layer])
            joined = torch.cat([frame(layer - 1, each) for each in span], dim=1)
            return F.conv2d(joined, weights[f"{name}.conv.weight"])
        x = frame(layer - 1, time)
        if layer in (0, 17):
            return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        if layer - 1 in strides:
            return F.conv2d(x, weights[f"{name}.weight"], stride=2, padding=1)
        past = frame(layer - 1, time - 1) if time else torch.zeros_like(x)
        return _memory_block(weights, name, x, past)

    return torch.cat([frame(17, time) for time in range(-(-len(frames) // group))])


def decode_video(weights: Weights, latents: Tensor) -> Tensor:
    """Decode [T, C, h, w] to frames, float32 [F, 3, H, W], without those that TAEHV drops."""
    strides = {
        index: weights[f"decoder.{index}.conv.weight"].shape[0] // DECODER[level]
        for level, index in enumerate((7, 13, 19))
    }

    @cache
    def frame(layer: int, time: int) -> Tensor:
        name = f"decoder.{layer}"
        if layer == 0:
            return torch.tanh(latents[time][None] / 3) * 3
        if layer in strides:
            stride = strides[layer]
            grown = F.conv2d(frame(layer - 1, time // stride), weights[f"{name}.conv.weight"])
            return grown.chunk(stride, dim=1)[time % stride]
        x = frame(layer - 1, time)
        if layer in (2, 21):
            return F.relu(x)
        if layer + 1 in strides:
            return F.interpolate(x, scale_factor=2)
        if f"{name}.weight" in weights:
            bias = weights.get(f"{name}.bias")
            return F.conv2d(x, weights[f"{name}.weight"], bias, padding=1)
        past = frame(layer - 1, time - 1) if time else torch.zeros_like(x)
        return _memory_block(weights, name, x, past)

    grown = strides[7] * strides[13] * strides[19]
    frames = torch.cat([frame(22, time) for time in range(grown * len(latents))])
    patch = round((weights["decoder.22.weight"].shape[0] / 3) ** 0.5)
    return F.pixel_shuffle(frames, patch)[grown - 1 :]


def _memory_block(weights: Weights, name: str, x: Tensor, past: Tensor) -> Tensor:
    inner = torch.cat([x, past], dim=1)
    for index in (0, 2, 4):
        part = f"{name}.conv.{index}"
        inner = F.conv2d(inner, weights[f"{part}.weight"], weights[f"{part}.bias"], padding=1)
        inner = inner if index == 4 else F.relu(inner)
    return F.relu(inner + x)
