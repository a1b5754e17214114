"""A small Wan checkpoint as diffusers saves it, and what its files have in other forms."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from doubles.cards import SHAPE, change_fields, make_card, save_card
from doubles.original_names import wan_autoencoder, wan_transformer
from doubles.small_families import perturb
from vditrack_export.card import Card, load_card

# The autoencoder has the levels and channels of Wan 2.1, which diffusers' conversion expects.
_MODEL = f"""
[transformer]
family = "wan"
feed_forward = 64
frequency_dim = 16{change_fields(SHAPE, {"in_channels": 16, "out_channels": 16})}
[encoder]
kind = "wan_autoencoder"
image_channels = 3
base_width = 4
multiples = [1, 2, 4, 4]
residual_blocks = 2
temporal_downsample = [false, true, true]
latent_channels = 16
"""
CARD = make_card(_MODEL)


class WanCheckpoint:
    """The models of `CARD` with random weights, also in a folder of diffusers."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder / "diffusers"
        self.card: Card = load_card(str(save_card(folder, CARD)))
        family = self.card.family
        transformer = perturb(WanTransformer3DModel(**family.denoiser.config()))
        autoencoder = perturb(AutoencoderKLWan(**family.encoder.config()))
        transformer.save_pretrained(self.folder / "transformer")
        autoencoder.save_pretrained(self.folder / "vae")
        self.transformer: dict[str, Tensor] = transformer.state_dict()
        self.autoencoder: dict[str, Tensor] = autoencoder.state_dict()

    @property
    def original(self) -> dict[str, Tensor]:
        """The transformer by the names of the original repository."""
        return wan_transformer(self.transformer)

    @property
    def original_autoencoder(self) -> dict[str, Tensor]:
        """The autoencoder by the names of the original repository."""
        return wan_autoencoder(self.autoencoder)

    def new_transformer(self) -> Any:
        """Return the whole transformer."""
        model = WanTransformer3DModel(**self.card.family.denoiser.config()).eval()
        model.load_state_dict(self.transformer)
        return model
