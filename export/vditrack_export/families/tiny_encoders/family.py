"""Tiny encoders as families' encoders: TAEHV, and TAESD of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from vditrack.bundle.manifest import Input
from vditrack.errors import InputError
from vditrack_export.checkpoints.checkpoint import CheckpointFiles
from vditrack_export.checkpoints.loading import load_model
from vditrack_export.checkpoints.mixed_checkpoint import open_model
from vditrack_export.checkpoints.weights import Config, StoredModel
from vditrack_export.families.base_family import Encoder
from vditrack_export.families.encoder_form import EncoderForm, separate_form, streaming_form
from vditrack_export.families.image_input import FramesToLatents, as_images
from vditrack_export.families.tiny_encoders.files import check_name, open_taehv, read_taehv
from vditrack_export.families.tiny_encoders.shapes import TAESD_BLOCKS, WIDTH, Taehv, Taesd
from vditrack_export.families.tiny_encoders.taehv import (
    TaehvFrameEncoder,
    TaehvNetwork,
    TaehvStreamEncoder,
)


class TaehvEncoder(Encoder[Taehv]):
    """TAEHV's encoder."""

    def files(self, checkpoint: CheckpointFiles) -> tuple[Path, ...]:
        """Return the file of the weights."""
        path = _require_weights(checkpoint)
        with torch.device("meta"):
            open_taehv(path, TaehvNetwork(self.shape), self.shape)
        return (path,)

    def load(self, checkpoint: CheckpointFiles) -> nn.Module:
        """Load the encoder in FP32, ready for inference."""
        network = TaehvNetwork(self.shape)
        read_taehv(_require_weights(checkpoint), network, self.shape)
        return network.eval()

    def build_random(self) -> nn.Module:
        """Build the encoder with random weights."""
        return TaehvNetwork(self.shape)

    def form(self, model: TaehvNetwork, size: Input) -> EncoderForm:
        """Return graphs that encode group after group, or single frames if they share no latent."""
        if size.temporal_stride == 1:
            return separate_form(TaehvFrameEncoder(model), frames=1, size=size)
        return streaming_form(TaehvStreamEncoder(model), size)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode, for each latent, the whole clip up to its last frame without caches."""
        if temporal_stride == 1:
            clips = list(torch.split(frames, 1))
        else:
            clips = [frames[: end + 1] for end in range(0, len(frames), temporal_stride)]
        with torch.no_grad():
            return torch.stack([model(clip)[-1] for clip in clips], dim=1)[None]


class TaesdImageEncoder(nn.Module):
    """Encodes single images to latents in the UNet's scale.

    Args:
        vae: Autoencoder in FP32, ready for inference; its submodules are shared.

    """

    def __init__(self, vae: AutoencoderTiny) -> None:
        """Share the layers of the encoder of ``vae``."""
        super().__init__()
        self.layers, self.scaling_factor = vae.encoder.layers, float(vae.config.scaling_factor)

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [F, 3, H, W] in [-1, 1] to latents, float32 [F, C, h, w]."""
        latents: Tensor = self.layers((images + 1) / 2)
        return latents * self.scaling_factor


class TaesdEncoder(Encoder[Taesd]):
    """A diffusers ``AutoencoderTiny``."""

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        return {
            "in_channels": 3,
            "latent_channels": self.shape.latent_channels,
            "encoder_block_out_channels": [WIDTH] * len(TAESD_BLOCKS),
            "num_encoder_blocks": list(TAESD_BLOCKS),
            "act_fn": "relu",
        }

    def files(self, checkpoint: CheckpointFiles) -> tuple[Path, ...]:
        """Return the files of the autoencoder."""
        return self._open(checkpoint).files

    def load(self, checkpoint: CheckpointFiles) -> nn.Module:
        """Load the unmodified autoencoder in FP32, ready for inference."""
        return load_model(self._open(checkpoint), AutoencoderTiny)

    def _open(self, checkpoint: CheckpointFiles) -> StoredModel:
        path = _require_weights(checkpoint)
        check_name(path, self.shape.published)
        return open_model(path, AutoencoderTiny, self.config(), None)

    def build_random(self) -> nn.Module:
        """Build the unmodified autoencoder with random weights."""
        model: nn.Module = AutoencoderTiny(**self.config())
        return model

    def form(self, model: AutoencoderTiny, size: Input) -> EncoderForm:
        """Return a graph of single frames."""
        return separate_form(FramesToLatents(TaesdImageEncoder(model)), frames=1, size=size)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        with torch.no_grad():
            latents: Tensor = model.encode(as_images(frames)).latents
        return torch.as_tensor(latents * model.config["scaling_factor"]).transpose(0, 1)[None]


def _require_weights(checkpoint: CheckpointFiles) -> Path:
    path = checkpoint.tiny_encoder
    if path is None:
        raise InputError("the tiny encoder has no weights. Give them with --encoder-weights.")
    return path


ENCODERS = {Taehv: TaehvEncoder, Taesd: TaesdEncoder}
