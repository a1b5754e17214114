"""The encoder of ``AutoencoderKLLTXVideo``, as LTX-Video 0.9.0 and 0.9.1 have it.

The first frame gives a latent of its own, and every eight frames after it one more. Frame by frame
there is nothing: each downsampling is a single convolution that halves rows, columns and frames at
once, so that none could be left out in time alone and the others be what they were. All
convolutions look back only, and norms see one position each, so a clip can be encoded group by
group, each frame once.
"""

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_ltx import (
    LTXVideoCausalConv3d,
    LTXVideoDownBlock3D,
    LTXVideoEncoder3d,
    LTXVideoResnetBlock3d,
)
from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.families.causal_conv import History
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.rounded_products import round_input

NATIVE_STRIDE = 8


class LtxStreamEncoder(nn.Module):
    """Maps a group of frames and the caches of the previous group to latents and the next caches.

    The first group comes without caches and is 1 + 8k frames; groups after it are 8k frames. The
    first frame is encoded differently, and so needs a graph of its own.

    Args:
        vae: Autoencoder in FP32, ready for inference; its submodules are shared. The caller refuses
            those of LTX-Video 0.9.5 and later, whose ``down_block_types`` differ, and encoders that
            look ahead.

    """

    mean: Tensor
    std: Tensor

    def __init__(self, vae: AutoencoderKLLTXVideo) -> None:
        """Share the encoder of ``vae``, with its normalisation as constants."""
        super().__init__()
        self.encoder = vae.encoder
        for name in ("mean", "std"):
            figures: Tensor = getattr(vae, f"latents_{name}")
            self.register_buffer(name, figures.reshape(1, -1, 1, 1, 1))

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Encode uint8 [F, H, W, 3] RGB.

        Returns:
            Normalised latents, float32 [1, C, t, h, w], the mean of the posterior; then the caches.

        Raises:
            InputError: The frames do not make whole latents.

        """
        _check_frames(len(frames) - (not caches))
        history = History(caches)
        moments = _encode(self.encoder, as_clip(frames), history)
        # What comes after the means is the logarithm of a variance that all channels share.
        mean = moments[:, : self.mean.shape[1]]
        return ((mean - self.mean) / self.std, *history.next_caches)


def _encode(encoder: LTXVideoEncoder3d, x: Tensor, history: History) -> Tensor:
    """Map a clip [1, 3, F, H, W] to the moments of its latents."""
    x = _convolve(encoder.conv_in, _to_patches(x, encoder.patch_size), history)
    for block in encoder.down_blocks:
        x = _run_down_block(block, x, history)
    for resnet in encoder.mid_block.resnets:
        x = _run_residual(resnet, x, history)
    x = encoder.conv_act(_normalise(encoder.norm_out, x))
    return _convolve(encoder.conv_out, x, history)


def _to_patches(x: Tensor, side: int) -> Tensor:
    """Turn squares of pixels into channels, column by column: to [1, C, F, h, w]."""
    squares = torch.unflatten(torch.unflatten(x, 4, (-1, side)), 3, (-1, side))
    return squares.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _run_down_block(block: LTXVideoDownBlock3D, x: Tensor, history: History) -> Tensor:
    for resnet in block.resnets:
        x = _run_residual(resnet, x, history)
    for sampler in block.downsamplers or ():
        x = _convolve(sampler, x, history)
    return x if block.conv_out is None else _run_residual(block.conv_out, x, history)


def _run_residual(block: LTXVideoResnetBlock3d, x: Tensor, history: History) -> Tensor:
    inner = block.nonlinearity(_normalise(block.norm1, x))
    inner = _convolve(block.conv1, inner, history)
    inner = block.nonlinearity(_normalise(block.norm2, inner))
    inner = _convolve(block.conv2, inner, history)
    if block.conv_shortcut is None:
        return inner + x
    across = block.norm3(x.movedim(1, -1)).movedim(-1, 1)
    # One frame wide: it needs no history.
    shortcut: Tensor = block.conv_shortcut.conv(across)
    return inner + shortcut


def _normalise(norm: RMSNorm, x: Tensor) -> Tensor:
    """Divide [1, C, T, H, W] by the root of the mean square over channels."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + norm.eps)


def _convolve(conv: LTXVideoCausalConv3d, x: Tensor, history: History) -> Tensor:
    """Convolve a group's frames, or each two of them to one, with two frames before the last.

    A convolution three frames wide with a stride of two begins at the last frame it saw.
    """
    seen_again = conv.kernel_size[0] - conv.conv.stride[0]
    # Caches have the precision of the weights, like all that is multiplied with them.
    x = round_input(conv.conv, x)
    convolved: Tensor = conv.conv(history.extend(x, seen_again, _prepend_first_twice))
    return convolved


def _prepend_first_twice(x: Tensor, _frames: int) -> Tensor:
    """Prepend the first frame twice to a clip, also if a single frame is cached later."""
    return torch.cat((x[:, :, :1], x[:, :, :1], x), dim=2)


def _check_frames(after_the_first: int) -> None:
    if after_the_first < 0 or after_the_first % NATIVE_STRIDE != 0:
        raise InputError(
            "the frames do not make whole latents: a clip begins with one frame, and "
            f"{NATIVE_STRIDE} more are one more latent."
        )
