"""The encoder of the bundled model; its transformer is a small Wan."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vditrack.bundle.manifest import Input
from vditrack.errors import InputError
from vditrack_export.families.base_family import Denoiser, Encoder
from vditrack_export.families.base_shapes import DenoiserShape
from vditrack_export.families.diffusers_files import check_finite
from vditrack_export.families.encoder_form import EncoderForm, separate_form
from vditrack_export.families.image_input import FramesToLatents, as_images
from vditrack_export.families.tiny.autoencoder import SHAPE_FILE, WEIGHTS_FILE, TinyEncoder
from vditrack_export.families.tiny.shapes import Convolutions


class TinyFamilyEncoder(Encoder[Convolutions]):
    """A `TinyEncoder`."""

    denoiser_folder = "vdit"

    def files(self, checkpoint: Path) -> list[Path]:
        """Return the two files of the encoder."""
        return [checkpoint / SHAPE_FILE, checkpoint / WEIGHTS_FILE]

    def load(self, checkpoint: Path) -> nn.Module:
        """Load the encoder in FP32, ready for inference."""
        try:
            encoder = TinyEncoder.load(checkpoint).eval().float()
        # Damaged JSON, damaged safetensors and unfit shapes each raise a class of their own.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"encoder of checkpoint {checkpoint} does not load: {reason}"
            ) from error
        for name, weight in encoder.state_dict().items():
            check_finite(checkpoint / WEIGHTS_FILE, name, weight)
        return encoder

    def build_random(self) -> nn.Module:
        """Build an encoder with random weights."""
        return TinyEncoder(self.shape.latent_channels, self.shape.widths)

    def form(self, model: nn.Module, size: Input) -> EncoderForm:
        """Return a graph of single frames."""
        return separate_form(FramesToLatents(model), frames=1, size=size)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        with torch.no_grad():
            return torch.as_tensor(model(as_images(frames))).transpose(0, 1)[None]


DENOISERS: dict[type[DenoiserShape], type[Denoiser[Any]]] = {}
ENCODERS = {Convolutions: TinyFamilyEncoder}
