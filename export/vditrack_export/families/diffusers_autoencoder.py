"""An encoder that is an autoencoder of diffusers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vditrack.errors import InputError
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
        stored = self._open(checkpoint)
        _check_statistics(stored, self.shape.latent_channels)
        return load_model(stored, self.model_class)

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


def _check_statistics(stored: StoredModel, channels: int) -> None:
    """Check the statistics of latents, which no weight contradicts.

    Raises:
        InputError: They are not numbers, one for each channel, or a deviation is not positive.

    """
    for name, positive in (("latents_mean", False), ("latents_std", True)):
        figures = stored.config.get(name)
        if figures is not None and not (
            isinstance(figures, list)
            and len(figures) == channels
            and all(_is_number(figure, positive=positive) for figure in figures)
        ):
            raise InputError(
                f"{stored.path}: {name} of the configuration are not {channels} "
                f"{'positive ' * positive}numbers. Copy it again."
            )
    factor = stored.config.get("scaling_factor")
    if factor is not None and not _is_number(factor, positive=True):
        raise InputError(
            f"{stored.path}: scaling_factor of the configuration is not a positive number. Copy it "
            "again."
        )


def _is_number(value: object, *, positive: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not positive or value > 0
