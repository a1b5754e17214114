"""Hidden states of Stable Video Diffusion's UNet, a window of frames after one denoising step.

TED (arXiv 2512.02339) reads the third block of its decoder as features of motion, at a step with
much noise, and does not print its other conditions. Here they are those of its own pipeline for a
clip that continues the window's first frame: that frame's latents, clean, beside every frame. The
image embedding is zero, as in the pipeline's unconditional guidance.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.attention import TemporalBasicTransformerBlock
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import Tensor, nn

from vditrack_export.families.feature_path import NoisedPath
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.unet.layers import Block, Mixed, Residual, to_clip, to_frames
from vditrack_export.families.unet.path import UNetWalk, last_frames, layer_part


@dataclass(frozen=True)
class StableVideoConditions:
    """Conditions of the model beside the window."""

    fps: float
    """Frame rate in frames per second; the model is given one less, as by its pipeline."""
    motion_bucket: float
    noise_augmentation: float
    scaling_factor: float
    """Factor of the latents; those of the conditioning frame are not scaled."""

    @property
    def figures(self) -> Tensor:
        """The conditions as the model takes them, float32 [1, 3]."""
        return torch.tensor([[self.fps - 1, self.motion_bucket, self.noise_augmentation]])


class StableVideoPath(NoisedPath):
    """Maps latents to the hidden states of one decoder layer.

    Args:
        model: The whole UNet in FP32; its submodules are shared.
        latent_shape: Channels, frames, rows and columns of the latents.
        cut: ``block`` is the layer, from 0; all its channels are read.
        denoising: The denoising step as the model sees it; signal and noise together have a
            variance of 1.
        image: Embedding of an image, float32 [1, image_dim].
        conditions: The model's other conditions.

    """

    def __init__(
        self,
        model: UNetSpatioTemporalConditionModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        image: Tensor,
        conditions: StableVideoConditions,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, denoising)
        self.described = cut.described
        self.scaling_factor = conditions.scaling_factor
        self.conv_in = model.conv_in
        with torch.no_grad():
            instant = model.time_embedding(model.time_proj(torch.tensor([denoising.timestep])))
            figures = model.add_time_proj(conditions.figures.flatten())
            instant = instant + model.add_embedding(figures.reshape(1, -1))
            steps = partial(_steps, instant, image, latent_shape[1])
            self.walk = UNetWalk(model, steps, lambda sampler: sampler, cut.block)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        noised = self.noised(latents)
        first = (latents[:, :, :1] / self.scaling_factor).expand_as(latents)
        frames = self.conv_in(to_frames(torch.cat((noised, first), dim=1)))
        return last_frames(self.walk(frames), self.described)


def _steps(
    instant: Tensor, image: Tensor, frames: int, block: nn.Module, index: int
) -> Iterator[nn.Module]:
    yield from (_Residual(part, instant) for part in layer_part(block, "resnets", index))
    yield from (
        _Transformer(part, image, frames) for part in layer_part(block, "attentions", index)
    )


class _Residual(nn.Module):
    """A residual block frame by frame, then one over time, and a weighted mean of both."""

    def __init__(self, block: SpatioTemporalResBlock, instant: Tensor) -> None:
        super().__init__()
        self.spatial = Residual(block.spatial_res_block, instant)
        self.temporal = Residual(block.temporal_res_block, instant)
        self.mixed = Mixed(block.time_mixer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spatial(x)
        mixed: Tensor = self.mixed(x, to_frames(self.temporal(to_clip(x))))
        return mixed


class _Transformer(nn.Module):
    """Alternating transformer blocks over positions and over frames, with a shortcut."""

    times: Tensor

    def __init__(self, model: TransformerSpatioTemporalModel, image: Tensor, frames: int) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = model.norm, model.proj_in, model.proj_out
        self.spatial = nn.ModuleList(Block(block, image) for block in model.transformer_blocks)
        self.temporal = nn.ModuleList(
            _TemporalBlock(block, image) for block in model.temporal_transformer_blocks
        )
        self.mixed = Mixed(model.time_mixer)
        times = model.time_pos_embed(model.time_proj(torch.arange(frames)))
        self.register_buffer("times", times[:, None])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            tokens = spatial(tokens)
            tokens = self.mixed(tokens, temporal(tokens + self.times))
        moved: Tensor = self.proj_out(tokens).transpose(1, 2).reshape(x.shape)
        return x + moved


class _TemporalBlock(nn.Module):
    """A transformer block over the frames at each position, on tokens [F, N, width]."""

    def __init__(self, block: TemporalBasicTransformerBlock, image: Tensor) -> None:
        super().__init__()
        self.norm_in, self.feed_forward_in = block.norm_in, block.ff_in
        self.block = Block(block, image)

    def forward(self, tokens: Tensor) -> Tensor:
        over_time = tokens.transpose(0, 1)
        over_time = over_time + self.feed_forward_in(self.norm_in(over_time))
        advanced: Tensor = self.block(over_time).transpose(0, 1)
        return advanced
