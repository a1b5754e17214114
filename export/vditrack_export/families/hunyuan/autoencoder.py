"""The encoder of ``AutoencoderKLHunyuanVideo``.

Natively 1 + 4k frames give 1 + k latents. diffusers encodes long clips in overlapping pieces of 17
frames. Within a piece nothing looks ahead in time but the group norms, which take their statistics
over all of its frames: a latent depends on later frames, and other pieces give other latents.

With a temporal stride of 1 each frame is encoded alone, as the one frame of a clip (DiffTrack,
arXiv 2506.17220): it then has a latent of its own that depends on no other frame. The convolutions
begin a clip by repeating its first frame, so in a clip of one they see that frame alone, and their
kernels can be added up over time.
"""

from copy import deepcopy

import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    HunyuanVideoCausalConv3d,
    HunyuanVideoEncoder3D,
)
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.layers import attend_by_head

NATIVE_STRIDE = 4
PIECE, STEP = 17, 12
"""Frames that diffusers encodes together, and the step from one such piece to the next."""
_KNOWN_FRAMES, _KNOWN_LATENTS = 5, 2
"""Frames and latents that a piece shares with the one before, whose latents are used."""


class HunyuanVideoClipEncoder(nn.Module):
    """Encodes a whole clip with the native temporal stride, piece by piece as diffusers does.

    Args:
        vae: Autoencoder in FP32, ready for inference; its submodules are shared.

    Raises:
        InputError: The autoencoder has another temporal stride, or no attention.

    """

    def __init__(self, vae: AutoencoderKLHunyuanVideo) -> None:
        """Share the encoder of ``vae``."""
        super().__init__()
        _check(vae)
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.scaling_factor = float(vae.config.scaling_factor)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode uint8 [1 + 4k, H, W, 3] RGB.

        Returns:
            Normalised latents, float32 [1, C, 1 + k, h, w], the mean of the posterior.

        """
        clip = as_clip(frames)
        starts = range(0, max(len(frames) - _KNOWN_FRAMES, 1), STEP)
        first, *others = (
            _encode(self.encoder, clip[:, :, start : start + PIECE]) for start in starts
        )
        encoded = torch.cat((first, *[piece[:, :, _KNOWN_LATENTS:] for piece in others]), dim=2)
        mean: Tensor = self.quant_conv(encoded).chunk(2, dim=1)[0]
        return mean * self.scaling_factor


class HunyuanVideoFrameEncoder(nn.Module):
    """Encodes single frames, each as a clip of its own.

    Arguments and errors are those of `HunyuanVideoClipEncoder`; the submodules are copied.
    """

    def __init__(self, vae: AutoencoderKLHunyuanVideo) -> None:
        """Copy the encoder of ``vae``, without time."""
        super().__init__()
        _check(vae)
        with torch.no_grad():
            self.encoder = _remove_time(vae.encoder)
        self.quant_conv = vae.quant_conv
        self.scaling_factor = float(vae.config.scaling_factor)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode uint8 [F, H, W, 3] RGB to normalised latents, float32 [1, C, F, h, w]."""
        images = as_clip(frames)[0].transpose(0, 1)
        encoded = _encode(self.encoder, images).transpose(0, 1)[None]
        mean: Tensor = self.quant_conv(encoded).chunk(2, dim=1)[0]
        return mean * self.scaling_factor


def _encode(encoder: HunyuanVideoEncoder3D, x: Tensor) -> Tensor:
    """Map a clip [1, 3, F, H, W], or images [F, 3, H, W], to the input of the last projection."""
    x = encoder.conv_in(x)
    for block in encoder.down_blocks:
        x = block(x)
    first, last = encoder.mid_block.resnets
    x = last(_attend(encoder.mid_block.attentions[0], first(x)))
    encoded: Tensor = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    return encoded


def _attend(attention: Attention, x: Tensor) -> Tensor:
    """Attend from each cell to all cells of its own and earlier frames of [B, C, T, h, w].

    diffusers masks later frames by a [cells, cells] matrix. Images [B, C, h, w] are one frame each.
    The products have the precision of the projections' weights.
    """
    cells = x.shape[-2] * x.shape[-1]
    normed = attention.group_norm(x.flatten(2)).transpose(1, 2)[:, None]
    query, key, value = attention.to_q(normed), attention.to_k(normed), attention.to_v(normed)
    attended = [
        attend_by_head(
            query[:, :, now - cells : now],
            key[:, :, :now],
            value[:, :, :now],
            attention.to_q.weight.dtype,
        )
        for now in range(cells, normed.shape[2] + 1, cells)
    ]
    out: Tensor = attention.to_out[0](torch.cat(attended, dim=2))
    return x + out[:, 0].transpose(1, 2).reshape(x.shape)


def _remove_time(encoder: HunyuanVideoEncoder3D) -> nn.Module:
    """Return a copy for images [F, 3, H, W]: every convolution without time."""
    flat: nn.Module = deepcopy(encoder)
    for parent in [*flat.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, HunyuanVideoCausalConv3d):
                setattr(parent, name, _flatten_convolution(child.conv))
    return flat


def _flatten_convolution(conv: nn.Conv3d) -> nn.Module:
    """Return what a convolution computes of one frame that is repeated in front."""
    _, rows, columns = conv.kernel_size
    _, down, right = conv.stride
    flat = nn.Conv2d(conv.in_channels, conv.out_channels, (rows, columns), (down, right))
    flat.weight.copy_(conv.weight.sum(2))
    assert flat.bias is not None and conv.bias is not None
    flat.bias.copy_(conv.bias)
    sides = (columns // 2, columns // 2, rows // 2, rows // 2)
    return nn.Sequential(nn.ReplicationPad2d(sides), flat) if any(sides) else flat


def _check(vae: AutoencoderKLHunyuanVideo) -> None:
    native = int(vae.config.temporal_compression_ratio)
    if native != NATIVE_STRIDE:
        raise InputError(
            f"the HunyuanVideo autoencoder has a latent every {native} frames; only one every "
            f"{NATIVE_STRIDE} can be exported."
        )
    if not vae.config.mid_block_add_attention:
        raise InputError(
            "this HunyuanVideo autoencoder has no attention, which all released ones have: use a "
            "checkpoint of HunyuanVideo."
        )
