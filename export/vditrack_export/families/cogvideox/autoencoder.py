"""The encoder of ``AutoencoderKLCogVideoX``.

Natively every temporal downsampling averages pairs of frames, a batch's first frame alone where
their number is odd: 1 + 4k frames give 1 + k latents. diffusers encodes batches of eight frames,
the first of them with the remainder, and carries the last frames of every convolution over. With a
temporal stride of 1 no frames are averaged, and each gives a latent (HeFT, arXiv 2512.04619).

The convolutions look back only, but the encoder is not causal: its group norms take their
statistics over all frames of a batch. A latent so depends on later frames of its batch, and other
batches give other latents.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXDownBlock3D,
    CogVideoXEncoder3D,
    CogVideoXResnetBlock3D,
)
from diffusers.models.downsampling import CogVideoXDownsample3D
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.families.causal_conv import History, convolve
from vditrack_export.families.clip_input import as_clip

NATIVE_STRIDE = 4
BATCH = 8
"""Frames that diffusers encodes together, and those that every norm sees."""


class CogVideoXStreamEncoder(nn.Module):
    """Maps a batch of frames and the caches of the previous batch to latents and the next caches.

    The first batch comes without caches. Latents are those of diffusers where the batches are: the
    first of 8 to 15 frames, and 8 in every other.

    Args:
        vae: Autoencoder in FP32, ready for inference; its submodules are shared.
        temporal_stride: Frames per latent; 1 averages none.

    Raises:
        InputError: The autoencoder has another temporal stride, or a quant_conv.

    """

    def __init__(self, vae: AutoencoderKLCogVideoX, temporal_stride: int) -> None:
        """Share the encoder of ``vae``, with its normalisation as constants."""
        super().__init__()
        _check(vae, temporal_stride)
        self.temporal_stride = temporal_stride
        self.encoder = vae.encoder
        self.scaling_factor = float(vae.config.scaling_factor)

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Encode uint8 [F, H, W, 3] RGB.

        Returns:
            Normalised latents, float32 [1, C, t, h, w], the mean of the posterior; then the caches.

        """
        return self.encode_clip(as_clip(frames), *caches)

    def encode_clip(self, clip: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Encode float32 [1, 3, F, H, W] in [-1, 1], as `forward` does."""
        history = History(caches)
        moments = _encode(self.encoder, clip, history, self.temporal_stride)
        mean, _ = moments.chunk(2, dim=1)
        return (mean * self.scaling_factor, *history.next_caches)


class CogVideoXClipEncoder(nn.Module):
    """Encodes a whole clip: natively batch by batch as diffusers does, frame by frame at once.

    Arguments and errors are those of `CogVideoXStreamEncoder`.
    """

    def __init__(self, vae: AutoencoderKLCogVideoX, temporal_stride: int) -> None:
        """Share the encoder of ``vae``."""
        super().__init__()
        self.stream = CogVideoXStreamEncoder(vae, temporal_stride)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode uint8 [F, H, W, 3] RGB to normalised latents, float32 [1, C, t, h, w]."""
        latents = []
        caches: Sequence[Tensor] = ()
        # TensorRT cannot split uint8, so the frames become a clip of real numbers first.
        for batch in torch.split(as_clip(frames), self._batches(len(frames)), dim=2):
            encoded, *caches = self.stream.encode_clip(batch, *caches)
            latents.append(encoded)
        return torch.cat(latents, dim=2)

    def _batches(self, frames: int) -> list[int]:
        if self.stream.temporal_stride == 1 or frames < BATCH:
            return [frames]
        return [BATCH + frames % BATCH, *[BATCH] * (frames // BATCH - 1)]


def _encode(
    encoder: CogVideoXEncoder3D, x: Tensor, history: History, temporal_stride: int
) -> Tensor:
    """Map a batch [1, 3, F, H, W] to the moments of its latents."""
    x = convolve(encoder.conv_in.conv, x, history, _repeat_first)
    for block in encoder.down_blocks:
        x = _run_down_block(block, x, history, temporal_stride)
    for resnet in encoder.mid_block.resnets:
        x = _run_residual(resnet, x, history)
    x = encoder.conv_act(encoder.norm_out(x))
    return convolve(encoder.conv_out.conv, x, history, _repeat_first)


def _run_down_block(
    block: CogVideoXDownBlock3D, x: Tensor, history: History, temporal_stride: int
) -> Tensor:
    for resnet in block.resnets:
        x = _run_residual(resnet, x, history)
    for sampler in block.downsamplers or ():
        x = _downsample(sampler, x, temporal_stride)
    return x


def _run_residual(block: CogVideoXResnetBlock3D, x: Tensor, history: History) -> Tensor:
    inner = block.nonlinearity(block.norm1(x))
    inner = convolve(block.conv1.conv, inner, history, _repeat_first)
    inner = block.nonlinearity(block.norm2(inner))
    inner = convolve(block.conv2.conv, inner, history, _repeat_first)
    return inner + (x if block.in_channels == block.out_channels else block.conv_shortcut(x))


def _downsample(sampler: CogVideoXDownsample3D, x: Tensor, temporal_stride: int) -> Tensor:
    if sampler.compress_time and temporal_stride != 1:
        x = _average_pairs(x)
    # diffusers pads at the right and at the bottom alone.
    images = F.pad(x[0].transpose(0, 1), (0, 1, 0, 1))
    sampled: Tensor = sampler.conv(images)
    return sampled.transpose(0, 1)[None]


def _average_pairs(x: Tensor) -> Tensor:
    """Average each two frames; the first stays alone if their number is odd."""
    single = x.shape[2] % 2
    if x.shape[2] == single:
        return x
    pairs = F.avg_pool3d(x[:, :, single:], (2, 1, 1))
    return torch.cat((x[:, :, :1], pairs), dim=2) if single else pairs


def _repeat_first(x: Tensor, frames: int) -> Tensor:
    return torch.cat((*[x[:, :, :1]] * frames, x), dim=2)


def _check(vae: AutoencoderKLCogVideoX, temporal_stride: int) -> None:
    native = int(vae.config.temporal_compression_ratio)
    if native != NATIVE_STRIDE:
        raise InputError(
            f"the CogVideoX autoencoder has a latent every {native} frames; only one every "
            f"{NATIVE_STRIDE} can be exported."
        )
    if temporal_stride not in (1, NATIVE_STRIDE):
        raise InputError(
            f"temporal stride {temporal_stride} is not one of the CogVideoX autoencoder's: give 1 "
            f"or {NATIVE_STRIDE}."
        )
    if vae.quant_conv is not None:
        raise InputError(
            "this CogVideoX autoencoder has a quant_conv, which none that was released has: use a "
            "checkpoint of CogVideoX."
        )
