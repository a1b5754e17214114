"""The encoder of ``AutoencoderKLWan``: of Wan 2.1, of Wan 2.2 and of Cosmos-Predict2.

Natively the first frame gives a latent of its own, and every four frames after it one more. With a
temporal stride of 1 the strided convolution in time of every temporal downsampling is left out, and
each frame gives a latent (HeFT, arXiv 2512.04619); all other convolutions still look back at the
two frames before. Nothing looks ahead, so a clip can be encoded group by group, each frame once.
"""

import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanEncoder3d,
    WanResample,
    WanResidualBlock,
    WanResidualDownBlock,
    patchify,
)
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.families.causal_conv import History, convolve
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.layers import attend_by_head
from vditrack_export.families.rounded_products import round_input, widen_output

NATIVE_STRIDE = 4


class WanStreamEncoder(nn.Module):
    """Maps a group of frames and the caches of the previous group to latents and the next caches.

    The first group comes without caches: 1 + 4k frames natively, any number frame by frame. Groups
    after it are 4k frames, or any number. Frame by frame, caches of zeros equal no caches; natively
    the first frame is encoded differently, and so needs a graph of its own.

    Args:
        vae: Autoencoder in FP32, ready for inference; its submodules are shared.
        temporal_stride: Frames per latent; 1 leaves the temporal downsampling out.

    Raises:
        InputError: The autoencoder has another temporal stride, or none can be left out.

    """

    mean: Tensor
    std: Tensor

    def __init__(self, vae: AutoencoderKLWan, temporal_stride: int) -> None:
        """Share the encoder of ``vae``, with its normalisation as constants."""
        super().__init__()
        _check_strides(vae, temporal_stride)
        self.temporal_stride = temporal_stride
        self.patch_size = vae.config.patch_size or 1
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        for name in ("mean", "std"):
            figures = torch.tensor(vae.config[f"latents_{name}"])
            self.register_buffer(name, figures.reshape(1, -1, 1, 1, 1))

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Encode uint8 [F, H, W, 3] RGB.

        Returns:
            Normalised latents, float32 [1, C, t, h, w], the mean of the posterior; then the caches.

        Raises:
            InputError: The frames do not make whole latents.

        """
        _check_frames(len(frames) - (not caches), self.temporal_stride)
        history = History(caches)
        clip = patchify(as_clip(frames), self.patch_size)
        moments = self.quant_conv(_encode(self.encoder, clip, history, self.temporal_stride))
        mean, _ = moments.chunk(2, dim=1)
        return ((mean - self.mean) / self.std, *history.next_caches)


class WanClipEncoder(nn.Module):
    """Encodes a whole clip at once: its memory grows with the clip, its graph does not.

    Arguments and errors are those of `WanStreamEncoder`.
    """

    def __init__(self, vae: AutoencoderKLWan, temporal_stride: int) -> None:
        """Share the encoder of ``vae``."""
        super().__init__()
        self.stream = WanStreamEncoder(vae, temporal_stride)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode uint8 [F, H, W, 3] RGB to normalised latents, float32 [1, C, t, h, w]."""
        latents: Tensor = self.stream(frames)[0]
        return latents


def _encode(encoder: WanEncoder3d, x: Tensor, history: History, temporal_stride: int) -> Tensor:
    """Map a clip [1, C, F, H, W] to the moments of its latents, before their last projection."""
    x = convolve(encoder.conv_in, x, history, _pad_with_zeros)
    for block in encoder.down_blocks:
        x = _run_down_block(block, x, history, temporal_stride)
    first, last = encoder.mid_block.resnets
    x = _run_residual(first, x, history)
    x = _run_residual(last, _attend(encoder.mid_block.attentions[0], x), history)
    x = encoder.nonlinearity(encoder.norm_out(x))
    return convolve(encoder.conv_out, x, history, _pad_with_zeros)


def _attend(attention: WanAttentionBlock, x: Tensor) -> Tensor:
    """Attend from each cell of [1, C, T, h, w] to all cells of its frame.

    The products have the precision of the projection's weights.
    """
    images = x[0].transpose(0, 1)
    projected = attention.to_qkv(attention.norm(images)).flatten(2).transpose(1, 2)[:, None]
    query, key, value = projected.chunk(3, dim=-1)
    attended = attend_by_head(query, key, value, attention.to_qkv.weight.dtype)
    out: Tensor = attention.proj(attended[:, 0].transpose(1, 2).reshape(images.shape))
    return x + out.transpose(0, 1)[None]


def _run_down_block(block: nn.Module, x: Tensor, history: History, temporal_stride: int) -> Tensor:
    """Run one entry of ``down_blocks``: a layer in Wan 2.1, a level in Wan 2.2's 5B model."""
    if isinstance(block, WanResidualBlock):
        return _run_residual(block, x, history)
    if isinstance(block, WanResample):
        return _downsample(block, x, history, temporal_stride)
    assert isinstance(block, WanResidualDownBlock)
    shortcut: Tensor = block.avg_shortcut(x)
    for resnet in block.resnets:
        x = _run_residual(resnet, x, history)
    if block.downsampler is not None:
        x = _downsample(block.downsampler, x, history, temporal_stride)
    return x + shortcut


def _run_residual(block: WanResidualBlock, x: Tensor, history: History) -> Tensor:
    shortcut: Tensor = block.conv_shortcut(x)
    x = convolve(block.conv1, block.nonlinearity(block.norm1(x)), history, _pad_with_zeros)
    x = convolve(block.conv2, block.nonlinearity(block.norm2(x)), history, _pad_with_zeros)
    return x + shortcut


def _downsample(block: WanResample, x: Tensor, history: History, temporal_stride: int) -> Tensor:
    images = block.resample(x[0].transpose(0, 1))
    x = images.transpose(0, 1)[None]
    if temporal_stride == 1 or block.mode == "downsample2d":
        return x
    known = history.extend(round_input(block.time_conv, x), 1, _pad_with_nothing)
    if not history.begins:
        return _merge_pairs(block.time_conv, known)
    # The first frame is not paired with any.
    first = x[:, :, :1]
    return (
        first
        if known.shape[2] == 1
        else torch.cat((first, _merge_pairs(block.time_conv, known)), 2)
    )


def _merge_pairs(conv: nn.Conv3d, known: Tensor) -> Tensor:
    """Convolve each two frames to one, with the frame before them."""
    return widen_output(conv, F.conv3d(known, conv.weight, conv.bias, conv.stride))


def _pad_with_zeros(x: Tensor, frames: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, frames, 0))


def _pad_with_nothing(x: Tensor, _frames: int) -> Tensor:
    return x


def _check_strides(vae: AutoencoderKLWan, temporal_stride: int) -> None:
    native = math.prod(2 if halved else 1 for halved in vae.config.temperal_downsample)
    # diffusers takes groups of four frames, whatever the configuration says.
    if native != NATIVE_STRIDE:
        raise InputError(
            f"the Wan autoencoder has a latent every {native} frames; only one every "
            f"{NATIVE_STRIDE} can be exported."
        )
    if temporal_stride not in (1, NATIVE_STRIDE):
        raise InputError(
            f"temporal stride {temporal_stride} is not one of the Wan autoencoder's: give 1 or "
            f"{NATIVE_STRIDE}."
        )
    if temporal_stride == 1 and vae.config.is_residual:
        raise InputError(
            "this Wan autoencoder (is_residual, as in Wan2.2-TI2V-5B) averages frames on its "
            f"shortcuts, so that it has no latent a frame: give temporal stride {NATIVE_STRIDE}."
        )


def _check_frames(after_the_first: int, temporal_stride: int) -> None:
    if after_the_first < 0 or after_the_first % temporal_stride != 0:
        raise InputError(
            f"the frames do not make whole latents: a clip begins with one frame, and "
            f"{temporal_stride} more are one more latent."
        )
