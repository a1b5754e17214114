"""The UNet family: Stable Diffusion 2, ADM, I2VGen-XL and Stable Video Diffusion."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from diffusers import (
    I2VGenXLUNet,
    UNet2DConditionModel,
    UNet2DModel,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.loading import load_model
from vditrack_export.checkpoints.weights import Config, StoredModel
from vditrack_export.families.base_family import Denoiser, Grid
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.unet.autoencoder import KlVae, PixelEncoder
from vditrack_export.families.unet.i2vgen import I2VGenPath, frame_positions
from vditrack_export.families.unet.shapes import (
    AdmUNet,
    I2VGenUNet,
    KlAutoencoder,
    Pixels,
    StableDiffusionUNet,
    StableVideoUNet,
    UNet,
)
from vditrack_export.families.unet.stable_diffusion import ImageUNetPath
from vditrack_export.families.unet.stable_video import StableVideoConditions, StableVideoPath
from vditrack_export.families.whole_model import Reading

UNetT = TypeVar("UNetT", bound=UNet)

_ONLY_EXPORTED = (
    "a UNet has no blocks to select from: it is only exported as its card says. Give the card of a "
    "transformer."
)


class UNetDenoiser(Denoiser[UNetT]):
    """A UNet of diffusers, cut after a layer of its decoder."""

    folder = "unet"

    def load(self, stored: StoredModel, blocks: int, grid: Grid) -> nn.Module:
        """Load the whole unmodified UNet."""
        return load_model(stored, self.model_class)

    def build_random(self, blocks: int) -> nn.Module:
        """Build the whole UNet with random weights."""
        return self.model_class(**self.config())

    def channels(self, feature: Feature) -> tuple[int, ...]:
        """Return all channels of the layer: hidden states are read whole, as a single head."""
        return tuple(range(self.shape.width(feature.block)))

    def read_whole(
        self,
        model: nn.Module,
        cut: Cut,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
    ) -> Tensor:
        """Run the unmodified UNet and read the hidden states that a decoder layer puts out."""
        caught: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            # Frames [T, D, rows, columns].
            caught.append(output if isinstance(output, Tensor) else output[0])

        with torch.no_grad(), ExitStack() as hooks:
            hooks.callback(_layer_end(model, cut.block).register_forward_hook(keep).remove)
            self.run(model, latents, denoising, prompt)
        return caught[-1][-cut.described :].permute(0, 2, 3, 1).flatten(0, 2)

    def read_blocks(
        self,
        model: nn.Module,
        reading: Reading,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
        found: Callable[[int, Tensor], None],
    ) -> None:
        """Refuse: a UNet is only exported as its card says."""
        raise InputError(_ONLY_EXPORTED)

    def denoising_at(self, feature: Feature, noise: float) -> Denoising:
        """Refuse: a UNet is only exported as its card says."""
        raise InputError(_ONLY_EXPORTED)


def _layer_end(model: Any, layer: int) -> nn.Module:  # noqa: ANN401
    """Return the module of a whole UNet that puts out a layer of its decoder, counted from 0."""
    level, index = divmod(layer, len(model.up_blocks[0].resnets))
    block = model.up_blocks[level]
    if index == len(block.resnets) - 1 and block.upsamplers is not None:
        upsampler: nn.Module = block.upsamplers[0]
        return upsampler
    parts = ("temp_attentions", "attentions", "temp_convs", "resnets")
    last = next(getattr(block, name) for name in parts if hasattr(block, name))
    end: nn.Module = last[index]
    return end


class StableDiffusionDenoiser(UNetDenoiser[StableDiffusionUNet]):
    """The ``UNet2DConditionModel`` of Stable Diffusion 2."""

    model_class = UNet2DConditionModel
    lora_loader = "StableDiffusionLoraLoaderMixin"

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the path depends on."""
        return _shared_config(self.shape, "CrossAttn{}Block2D", "{}Block2D") | {
            "in_channels": self.shape.in_channels,
            "cross_attention_dim": self.shape.text_dim,
            # Named wrongly in diffusers, and kept so.
            "attention_head_dim": list(self.shape.attention_heads),
            "use_linear_projection": True,
            "act_fn": "silu",
            "center_input_sample": False,
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "mid_block_scale_factor": 1,
            "only_cross_attention": False,
            "dual_cross_attention": False,
            "class_embed_type": None,
            "num_class_embeds": None,
            "addition_embed_type": None,
            "encoder_hid_dim_type": None,
            "attention_type": "default",
            "resnet_time_scale_shift": "default",
            "resnet_out_scale_factor": 1.0,
            "time_embedding_act_fn": None,
        }

    def path(
        self,
        model: UNet2DConditionModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> nn.Module:
        """Return the module that maps latents to descriptors."""
        return ImageUNetPath(model, latent_shape, cut, denoising, prompt)

    def run(
        self, model: UNet2DConditionModel, latents: Tensor, denoising: Denoising, prompt: Tensor
    ) -> object:
        """Run the unmodified model as its pipeline does, on latents without noise."""
        frames = denoising.noised(latents)[0].transpose(0, 1)
        every = prompt.expand(len(frames), -1, -1)
        return model(frames, torch.tensor(denoising.timestep), every)


class AdmDenoiser(UNetDenoiser[AdmUNet]):
    """A diffusers ``UNet2DModel`` built like ADM."""

    model_class = UNet2DModel

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the path depends on."""
        attends = self.shape.attention
        return {
            "block_out_channels": list(self.shape.widths),
            "layers_per_block": self.shape.residual_blocks,
            "in_channels": self.shape.in_channels,
            "out_channels": self.shape.out_channels,
            "down_block_types": [
                "AttnDownBlock2D" if there else "ResnetDownsampleBlock2D" for there in attends
            ],
            "up_block_types": [
                "AttnUpBlock2D" if there else "ResnetUpsampleBlock2D" for there in reversed(attends)
            ],
            "attention_head_dim": self.shape.head_dim,
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "resnet_time_scale_shift": "scale_shift",
            # Without it the attention in the middle would have no norm.
            "attn_norm_num_groups": 32,
            "act_fn": "silu",
            "center_input_sample": False,
            "time_embedding_type": "positional",
            "mid_block_type": "UNetMidBlock2D",
            "mid_block_scale_factor": 1,
            "add_attention": True,
            "class_embed_type": None,
            "num_class_embeds": None,
        }

    def path(
        self,
        model: UNet2DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> nn.Module:
        """Return the module that maps latents to descriptors."""
        return ImageUNetPath(model, latent_shape, cut, denoising, prompt)

    def run(
        self,
        model: UNet2DModel,
        latents: Tensor,
        denoising: Denoising,
        prompt: Tensor,
    ) -> object:
        """Run the unmodified model as its pipeline does, on latents without noise."""
        frames = denoising.noised(latents)[0].transpose(0, 1)
        return model(frames, torch.tensor(denoising.timestep))


class I2VGenDenoiser(UNetDenoiser[I2VGenUNet]):
    """A diffusers ``I2VGenXLUNet``."""

    model_class = I2VGenXLUNet

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the path depends on."""
        return _shared_config(self.shape, "CrossAttn{}Block3D", "{}Block3D") | {
            "in_channels": self.shape.in_channels,
            "cross_attention_dim": self.shape.text_dim,
            "attention_head_dim": self.shape.head_dim,
        }

    def path(
        self,
        model: I2VGenXLUNet,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> nn.Module:
        """Return the module that maps latents to descriptors."""
        return I2VGenPath(model, latent_shape, cut, denoising, prompt, self.shape.fps)

    def run(
        self, model: I2VGenXLUNet, latents: Tensor, denoising: Denoising, prompt: Tensor
    ) -> object:
        """Run the unmodified model as its pipeline does, on latents without noise."""
        _, channels, frames, rows, columns = latents.shape
        places = frame_positions((channels, frames, rows, columns))
        return model(
            denoising.noised(latents),
            torch.tensor([denoising.timestep]),
            fps=torch.tensor([self.shape.fps]),
            image_latents=torch.cat((latents[:, :, :1], places), dim=2),
            image_embeddings=torch.zeros(1, prompt.shape[1]),
            encoder_hidden_states=prompt[None],
        )


class StableVideoDenoiser(UNetDenoiser[StableVideoUNet]):
    """A diffusers ``UNetSpatioTemporalConditionModel``."""

    model_class = UNetSpatioTemporalConditionModel

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the path depends on."""
        kinds = "CrossAttn{}BlockSpatioTemporal", "{}BlockSpatioTemporal"
        return _shared_config(self.shape, *kinds) | {
            # Beside each frame's latents those of the conditioning frame.
            "in_channels": 2 * self.shape.in_channels,
            "cross_attention_dim": self.shape.image_dim,
            "num_attention_heads": list(self.shape.attention_heads),
            "addition_time_embed_dim": self.shape.condition_dim,
            "projection_class_embeddings_input_dim": 3 * self.shape.condition_dim,
            "transformer_layers_per_block": 1,
        }

    @property
    def conditions(self) -> StableVideoConditions:
        """What the model is given beside the window."""
        shape, encoder = self.shape, self.encoder_shape
        scaling = encoder.scaling_factor if isinstance(encoder, KlAutoencoder) else 1.0
        return StableVideoConditions(
            shape.fps, shape.motion_bucket, shape.noise_augmentation, scaling
        )

    def path(
        self,
        model: UNetSpatioTemporalConditionModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> nn.Module:
        """Return the module that maps latents to descriptors."""
        return StableVideoPath(model, latent_shape, cut, denoising, prompt, self.conditions)

    def run(
        self,
        model: UNetSpatioTemporalConditionModel,
        latents: Tensor,
        denoising: Denoising,
        prompt: Tensor,
    ) -> object:
        """Run the unmodified model as its pipeline does, on latents without noise."""
        conditions = self.conditions
        first = (latents[:, :, :1] / conditions.scaling_factor).expand_as(latents)
        return model(
            torch.cat((denoising.noised(latents), first), dim=1).transpose(1, 2),
            torch.tensor([denoising.timestep]),
            encoder_hidden_states=prompt[None],
            added_time_ids=conditions.figures,
        )


def _shared_config(shape: UNet, attending: str, plain: str) -> Config:
    """Return entries for a UNet whose levels all have attention but the deepest."""
    above = len(shape.widths) - 1
    return {
        "block_out_channels": list(shape.widths),
        "layers_per_block": shape.residual_blocks,
        "out_channels": shape.out_channels,
        "down_block_types": [attending.format("Down")] * above + [plain.format("Down")],
        "up_block_types": [plain.format("Up")] + [attending.format("Up")] * above,
    }


DENOISERS = {
    StableDiffusionUNet: StableDiffusionDenoiser,
    AdmUNet: AdmDenoiser,
    I2VGenUNet: I2VGenDenoiser,
    StableVideoUNet: StableVideoDenoiser,
}
ENCODERS = {KlAutoencoder: KlVae, Pixels: PixelEncoder}
