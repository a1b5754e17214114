"""Encoders that UNets come with: ``AutoencoderKL``, and none."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Encoder as KlEncoder
from torch import Tensor, nn

from vditrack.bundle.manifest import Input
from vditrack_export.checkpoints.checkpoint import CheckpointFiles
from vditrack_export.checkpoints.weights import Config
from vditrack_export.families.base_family import Encoder
from vditrack_export.families.diffusers_autoencoder import Autoencoder
from vditrack_export.families.encoder_form import EncoderForm, separate_form
from vditrack_export.families.image_input import FramesToLatents, as_images
from vditrack_export.families.layers import attend_by_head
from vditrack_export.families.unet.shapes import KlAutoencoder, Pixels


class KlImageEncoder(nn.Module):
    """Encodes single images to the posterior's mean, scaled as the UNet takes it.

    Args:
        vae: Autoencoder in FP32, ready for inference; its submodules are shared.

    """

    def __init__(self, vae: AutoencoderKL | AutoencoderKLTemporalDecoder) -> None:
        """Share the encoder of ``vae``."""
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.scaling_factor: float = vae.config.scaling_factor

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [F, 3, H, W] in [-1, 1] to latents, float32 [F, C, h, w]."""
        mean: Tensor = self.quant_conv(_encode(self.encoder, images)).chunk(2, dim=1)[0]
        return mean * self.scaling_factor


def _encode(encoder: KlEncoder, x: Tensor) -> Tensor:
    """Map images [F, 3, H, W] to the moments of their latents, before their last projection."""
    x = encoder.conv_in(x)
    for block in encoder.down_blocks:
        x = block(x)
    first, last = encoder.mid_block.resnets
    x = first(x, None)
    if (attention := encoder.mid_block.attentions[0]) is not None:
        x = _attend(attention, x)
    x = last(x, None)
    encoded: Tensor = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    return encoded


def _attend(attention: Attention, x: Tensor) -> Tensor:
    """Attend from each cell of images [F, C, h, w] to all cells of its image.

    The products have the precision of the projections' weights.
    """
    normed = attention.group_norm(x.flatten(2)).transpose(1, 2)[:, None]
    query, key, value = attention.to_q(normed), attention.to_k(normed), attention.to_v(normed)
    attended = attend_by_head(query, key, value, attention.to_q.weight.dtype)
    out: Tensor = attention.to_out[0](attended)
    return x + out[:, 0].transpose(1, 2).reshape(x.shape)


class KlVae(Autoencoder[KlAutoencoder]):
    """A diffusers ``AutoencoderKL`` or ``AutoencoderKLTemporalDecoder``."""

    def __init__(self, shape: KlAutoencoder) -> None:
        """Choose the class by the decoder."""
        super().__init__(shape)
        self.model_class = AutoencoderKLTemporalDecoder if shape.temporal_decoder else AutoencoderKL

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape, levels = self.shape, len(self.shape.widths)
        config = {
            "in_channels": shape.image_channels,
            "out_channels": shape.image_channels,
            "block_out_channels": list(shape.widths),
            "layers_per_block": shape.residual_blocks,
            "latent_channels": shape.latent_channels,
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "scaling_factor": shape.scaling_factor,
        }
        if shape.temporal_decoder:
            return config
        # Later autoencoders shift their latents, or have no quant_conv; no card of a UNet has one.
        return config | {
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "act_fn": "silu",
            "use_quant_conv": True,
            "shift_factor": None,
        }

    def form(self, model: nn.Module, size: Input) -> EncoderForm:
        """Return a graph of single frames."""
        return separate_form(FramesToLatents(KlImageEncoder(model)), frames=1, size=size)

    def decode(self, model: Any, latents: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Decode latents with the unmodified model."""
        images = latents[0].transpose(0, 1)
        frames = {"num_frames": len(images)} if self.shape.temporal_decoder else {}
        decoded: Tensor = model.decode(images, **frames).sample
        return decoded

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        with torch.no_grad():
            latents = model.encode(as_images(frames)).latent_dist.mode()
        return torch.as_tensor(latents * model.config["scaling_factor"]).transpose(0, 1)[None]


class PixelEncoder(Encoder[Pixels]):
    """No encoder: pixels are the latents."""

    def files(self, checkpoint: CheckpointFiles) -> tuple[Path, ...]:
        """Return no files."""
        return ()

    def load(self, checkpoint: CheckpointFiles) -> nn.Module:
        """Return the identity."""
        return nn.Identity()

    def build_random(self) -> nn.Module:
        """Return the identity."""
        return nn.Identity()

    def form(self, model: nn.Module, size: Input) -> EncoderForm:
        """Return a graph of single frames."""
        return separate_form(FramesToLatents(model), frames=1, size=size)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Return the frames as images."""
        return torch.as_tensor(model(as_images(frames))).transpose(0, 1)[None]
