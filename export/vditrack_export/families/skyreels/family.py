"""The SkyReels-V2 family (arXiv 2504.13074): text to video, with or without diffusion forcing."""

from typing import Any

import torch
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor, nn

from vditrack_export.checkpoints.weights import Config
from vditrack_export.families.base_family import Encoder, Grid
from vditrack_export.families.base_shapes import EncoderShape
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.skyreels.shapes import SkyReelsTransformer
from vditrack_export.families.wan.family import WanDenoiser
from vditrack_export.families.wan.transformer import WanPath

_SLOW_FPS = 16
"""The frame rate that diffusers' pipelines give the model as 0; all others are 1."""


class SkyReelsDenoiser(WanDenoiser[SkyReelsTransformer]):
    """A diffusers ``SkyReelsV2Transformer3DModel``.

    Diffusion forcing gives each frame a timestep of its own. Frames of a tracked clip are compared
    with each other, so all have the card's timestep.
    """

    model_class = SkyReelsV2Transformer3DModel
    lora_loader = "SkyReelsV2LoraLoaderMixin"

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        return super().config() | {"inject_sample_info": self.shape.fps is not None}

    def refusal(self, config: Config, grid: Grid) -> str | None:
        """Refuse attention that is causal block by block, and what Wan refuses."""
        if config.get("num_frame_per_block", 1) > 1:
            return "its attention is causal between blocks of frames, which has no path"
        return super().refusal(config, grid)

    def path(
        self,
        model: SkyReelsV2Transformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> nn.Module:
        """Return the module that maps latents to descriptors."""
        condition = None
        if self.shape.fps is not None:
            with torch.no_grad():
                embedded = model.fps_embedding(torch.tensor([self._fps_class]))
                condition = model.fps_projection(embedded).unflatten(1, (6, -1))
        return WanPath(model, latent_shape, cut, denoising, prompt, condition)

    def run_noised(
        self, model: SkyReelsV2Transformer3DModel, noised: Tensor, timestep: Tensor, prompt: Tensor
    ) -> object:
        """Run the unmodified model as its pipeline does."""
        return model(noised, timestep, prompt[None], fps=[self._fps_class])

    @property
    def _fps_class(self) -> int:
        return int(self.shape.fps != _SLOW_FPS)


DENOISERS = {SkyReelsTransformer: SkyReelsDenoiser}
ENCODERS: dict[type[EncoderShape], type[Encoder[Any]]] = {}
