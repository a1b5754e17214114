"""The Cosmos family: Cosmos-Predict2 Video2World. Its autoencoder is Wan's."""

from typing import Any

import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor

from vditrack_export.checkpoints.weights import Config
from vditrack_export.families.base_family import Encoder, Grid
from vditrack_export.families.base_shapes import EncoderShape, Feature
from vditrack_export.families.cosmos.shapes import CosmosTransformer
from vditrack_export.families.cosmos.transformer import PIPELINE_FPS, CosmosPath
from vditrack_export.families.rotary import cosmos_channels
from vditrack_export.families.transformer_denoiser import TransformerDenoiser

_POSITIONS = 128
"""Length of the rotary tables of diffusers' ``CosmosRotaryPosEmbed`` along each axis."""


class CosmosDenoiser(TransformerDenoiser[CosmosTransformer]):
    """A diffusers ``CosmosTransformer3DModel``."""

    model_class = CosmosTransformer3DModel
    lora_loader = "CosmosLoraLoaderMixin"
    path_class = CosmosPath
    blocks = "transformer_blocks"
    timesteps = 1

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        return super().config() | {
            "patch_size": list(shape.patch),
            # One more channel marks the frames that are conditions.
            "in_channels": shape.in_channels + 1,
            "text_embed_dim": shape.text_dim,
            "adaln_lora_dim": shape.modulation_dim,
            "mlp_ratio": shape.feed_forward / shape.width,
            "concat_padding_mask": True,
            "extra_pos_embed_type": None,
            "rope_scale": list(shape.rope_scale),
        }

    def refusal(self, config: Config, grid: Grid) -> str | None:
        """Refuse Cosmos 1 and 2.5, and windows longer than the rotary tables."""
        if max(grid) > _POSITIONS:
            return f"the window is longer than the transformer's {_POSITIONS} positions"
        if config.get("extra_pos_embed_type", "learnable") is not None:
            return "Cosmos 1 has learnable positions, which have no path"
        conditions = ("img_context_dim_in", "use_crossattn_projection", "controlnet_block_every_n")
        if any(config.get(name) for name in conditions):
            return "Cosmos 2.5 has conditions that have no path yet"
        return None

    def channels(self, feature: Feature) -> tuple[int, ...]:
        """Return the channels of each head that a card's frequency range keeps."""
        head_dim = self.shape.head_dim
        return tuple(cosmos_channels(head_dim, feature.frequency_range, feature.frequency_layout))

    def run_noised(
        self, model: CosmosTransformer3DModel, noised: Tensor, timestep: Tensor, prompt: Tensor
    ) -> object:
        """Run the unmodified model as its pipeline does, without a conditioning frame."""
        _, _, frames, rows, columns = noised.shape
        # The model would resize a padding mask with torchvision; here it comes as a second channel
        # of the other mask, which stands in the same place.
        model.register_to_config(concat_padding_mask=False)
        unmarked = torch.zeros(1, 2, frames, rows, columns)
        return model(noised, timestep, prompt[None], fps=PIPELINE_FPS, condition_mask=unmarked)


DENOISERS = {CosmosTransformer: CosmosDenoiser}
ENCODERS: dict[type[EncoderShape], type[Encoder[Any]]] = {}
