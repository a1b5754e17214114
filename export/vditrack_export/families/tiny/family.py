"""The encoder of the bundled model; its transformer is a small Wan."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vditrack.bundle.manifest import Input
from vditrack.errors import InputError
from vditrack_export.checkpoints.checkpoint import CheckpointFiles
from vditrack_export.checkpoints.weights import check_finite
from vditrack_export.families.base_family import Denoiser, Encoder
from vditrack_export.families.base_shapes import DenoiserShape
from vditrack_export.families.encoder_form import EncoderForm, separate_form
from vditrack_export.families.image_input import FramesToLatents, as_images
from vditrack_export.families.tiny.autoencoder import SHAPE_FILE, WEIGHTS_FILE, TinyEncoder
from vditrack_export.families.tiny.shapes import Convolutions


class TinyFamilyEncoder(Encoder[Convolutions]):
    """A `TinyEncoder`."""

    denoiser_folder = "vdit"

    def files(self, checkpoint: CheckpointFiles) -> tuple[Path, ...]:
        """Return the two files of the encoder."""
        files = checkpoint.root / SHAPE_FILE, checkpoint.root / WEIGHTS_FILE
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise InputError(
                f"checkpoint {checkpoint.root} lacks {', '.join(missing)}. Copy the whole of it."
            )
        return files

    def load(self, checkpoint: CheckpointFiles) -> nn.Module:
        """Load the encoder in FP32, ready for inference."""
        folder = checkpoint.root
        try:
            encoder = TinyEncoder.load(folder).eval().float()
        # Damaged JSON, damaged safetensors and unfit shapes each raise a class of their own.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"encoder of checkpoint {folder} does not load: {reason}") from error
        for name, weight in encoder.state_dict().items():
            check_finite(folder / WEIGHTS_FILE, name, weight)
        return encoder

    def build_random(self) -> nn.Module:
        """Build an encoder with random weights."""
        shape = self.shape
        return TinyEncoder(shape.latent_channels, shape.widths, shape.residuals, shape.context)

    def form(self, model: nn.Module, size: Input) -> EncoderForm:
        """Return a graph of single frames."""
        return separate_form(FramesToLatents(model), frames=1, size=size)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        with torch.no_grad():
            return torch.as_tensor(model(as_images(frames))).transpose(0, 1)[None]


DENOISERS: dict[type[DenoiserShape], type[Denoiser[Any]]] = {}
ENCODERS = {Convolutions: TinyFamilyEncoder}
