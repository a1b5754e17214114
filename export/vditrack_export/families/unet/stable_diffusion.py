"""Hidden states of a UNet of single pictures: Stable Diffusion 2, and ADM.

The decoder is cut after one of its layers. TED (arXiv 2512.02339) reads such hidden states as
features of appearance, at a step with little noise. Several frames are as many pictures.
"""

from collections.abc import Iterator
from functools import partial

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from vditrack_export.families.feature_path import NoisedPath
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.unet.layers import ImageAttention, Residual, SpatialTransformer
from vditrack_export.families.unet.path import UNetWalk, last_frames, layer_part


class ImageUNetPath(NoisedPath):
    """Maps latents to the hidden states of one decoder layer after one denoising step.

    Args:
        model: The whole UNet in FP32; its submodules are shared.
        latent_shape: Channels, frames, rows and columns of the latents, or of the pixels.
        cut: ``block`` is the layer, from 0; all its channels are read.
        denoising: The denoising step.
        prompt: Output of the text encoder, float32 [tokens, text_dim], for a UNet that takes it.

    """

    def __init__(
        self,
        model: UNet2DConditionModel | UNet2DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, denoising)
        self.described = cut.described
        self.conv_in = model.conv_in
        with torch.no_grad():
            instant = model.time_embedding(model.time_proj(torch.tensor([denoising.timestep])))
            steps = (
                partial(_prompted_steps, instant, prompt)
                if isinstance(model, UNet2DConditionModel)
                else partial(_plain_steps, instant)
            )
            self.walk = UNetWalk(model, steps, partial(_resize_module, instant), cut.block)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        noised = self.noised(latents)
        frames = noised[0].transpose(0, 1)
        return last_frames(self.walk(self.conv_in(frames)), self.described)


def _prompted_steps(
    instant: Tensor, prompt: Tensor, block: nn.Module, index: int
) -> Iterator[nn.Module]:
    yield from (Residual(part, instant) for part in layer_part(block, "resnets", index))
    yield from (SpatialTransformer(part, prompt) for part in layer_part(block, "attentions", index))


def _plain_steps(instant: Tensor, block: nn.Module, index: int) -> Iterator[nn.Module]:
    yield from (Residual(part, instant) for part in layer_part(block, "resnets", index))
    yield from (ImageAttention(part) for part in layer_part(block, "attentions", index))


def _resize_module(instant: Tensor, sampler: nn.Module) -> nn.Module:
    """Return the module that resizes the picture; in ADM it is a residual block with a timestep."""
    return Residual(sampler, instant) if isinstance(sampler, ResnetBlock2D) else sampler
