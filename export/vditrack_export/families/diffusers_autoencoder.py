"""An encoder that is an autoencoder of diffusers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vditrack_export.checkpoints.checkpoint import CheckpointFiles
from vditrack_export.checkpoints.loading import load_model
from vditrack_export.checkpoints.weights import Config, StoredModel
from vditrack_export.families.base_family import (
    Encoder,
    EncoderShapeT,
)


class Autoencoder(Encoder[EncoderShapeT]):
    """An autoencoder of diffusers."""

    folder = "vae"
    model_class: type[nn.Module]
    """Class in diffusers."""

    @abstractmethod
    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""

    def random_config(self) -> Config:
        """Return further entries of a model with random weights."""
        return {}

    def files(self, checkpoint: CheckpointFiles) -> tuple[Path, ...]:
        """Return the files of the checkpoint's autoencoder."""
        return self._open(checkpoint).files

    def load(self, checkpoint: CheckpointFiles) -> nn.Module:
        """Load the unmodified autoencoder in FP32, ready for inference."""
        return load_model(self._open(checkpoint), self.model_class)

    def _open(self, checkpoint: CheckpointFiles) -> StoredModel:
        return checkpoint.open(self.folder, self.model_class, self.config())

    def build_random(self) -> nn.Module:
        """Build the unmodified autoencoder with random weights."""
        return self.model_class(**self.config(), **self.random_config())

    def build_decoder(self, temporal_stride: int) -> Callable[[Tensor], Tensor] | None:
        """Build the decoder of the checkpoint's pipeline with random weights."""
        model = self.model_class(**self.config()).eval()
        return lambda latents: self.decode(model, latents, temporal_stride)

    def decode(self, model: Any, latents: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Decode latents with the unmodified model as its pipeline does.

        Args:
            model: The unmodified model, which may be changed to leave out temporal upsampling.
            latents: [1, C, T, h, w].
            temporal_stride: Frames per latent.

        Returns:
            A clip [1, 3, F, H, W], or images [F, 3, H, W].

        """
        frames: Tensor = model.decode(latents).sample
        return frames
