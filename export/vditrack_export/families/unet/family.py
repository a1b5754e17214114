"""What export needs to know of each family of UNets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    I2VGenXLUNet,
    UNet2DConditionModel,
    UNet2DModel,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor, nn

from vditrack_export.card import (
    AdmUNet,
    Card,
    I2VGenUNet,
    KlAutoencoder,
    StableDiffusionUNet,
    StableVideoUNet,
    UNet,
)
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.registry import Config
from vditrack_export.families.unet.i2vgen import I2VGenPath, later_places
from vditrack_export.families.unet.stable_diffusion import ImageUNetPath
from vditrack_export.families.unet.stable_video import StableVideoConditions, StableVideoPath


@dataclass(frozen=True)
class UNetFamily:
    """One family: the diffusers class, the way cut out of it, and how the whole of it is run."""

    model: type[nn.Module]
    config: Callable[[Any], Config]
    """Configuration of the class from a card's shapes, and all else that the path counts on."""
    path: Callable[[Card, Any, LatentShape, Cut, Denoising, Tensor], nn.Module]
    run: Callable[[Card, Any, Tensor, Denoising, Tensor], object]
    """The whole unmodified model on clean latents [1, C, T, h, w], a step and a prompt."""


def unet_family(shape: UNet) -> UNetFamily:
    """Return the family of a card's UNet."""
    return _FAMILIES[type(shape)]


def layer_end(model: Any, layer: int) -> nn.Module:  # noqa: ANN401
    """Return the part of a whole UNet that puts out a layer of its decoder, counted from 0."""
    level, index = divmod(layer, len(model.up_blocks[0].resnets))
    block = model.up_blocks[level]
    if index == len(block.resnets) - 1 and block.upsamplers is not None:
        upsampler: nn.Module = block.upsamplers[0]
        return upsampler
    parts = ("temp_attentions", "attentions", "temp_convs", "resnets")
    last = next(getattr(block, name) for name in parts if hasattr(block, name))
    end: nn.Module = last[index]
    return end


def _stable_diffusion_config(shape: StableDiffusionUNet) -> Config:
    return _shared(shape, "CrossAttn{}Block2D", "{}Block2D") | {
        "in_channels": shape.in_channels,
        "cross_attention_dim": shape.text_dim,
        # Named wrongly in diffusers, and kept so.
        "attention_head_dim": list(shape.attention_heads),
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


def _adm_config(shape: AdmUNet) -> Config:
    attends = shape.attention
    return {
        "block_out_channels": list(shape.widths),
        "layers_per_block": shape.residual_blocks,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "down_block_types": [_ADM_DOWN[there] for there in attends],
        "up_block_types": [_ADM_UP[there] for there in reversed(attends)],
        "attention_head_dim": shape.head_dim,
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


_ADM_DOWN = {True: "AttnDownBlock2D", False: "ResnetDownsampleBlock2D"}
_ADM_UP = {True: "AttnUpBlock2D", False: "ResnetUpsampleBlock2D"}


def _i2vgen_config(shape: I2VGenUNet) -> Config:
    return _shared(shape, "CrossAttn{}Block3D", "{}Block3D") | {
        "in_channels": shape.in_channels,
        "cross_attention_dim": shape.text_dim,
        "attention_head_dim": shape.head_dim,
    }


def _stable_video_config(shape: StableVideoUNet) -> Config:
    kinds = "CrossAttn{}BlockSpatioTemporal", "{}BlockSpatioTemporal"
    return _shared(shape, *kinds) | {
        # Beside each frame's latents those of the conditioning frame.
        "in_channels": 2 * shape.in_channels,
        "cross_attention_dim": shape.image_dim,
        "num_attention_heads": list(shape.attention_heads),
        "addition_time_embed_dim": shape.condition_dim,
        "projection_class_embeddings_input_dim": 3 * shape.condition_dim,
        "transformer_layers_per_block": 1,
    }


def _shared(shape: UNet, attending: str, plain: str) -> Config:
    """Of UNets whose levels attend, but for the deepest."""
    above = len(shape.widths) - 1
    return {
        "block_out_channels": list(shape.widths),
        "layers_per_block": shape.residual_blocks,
        "out_channels": shape.out_channels,
        "down_block_types": [attending.format("Down")] * above + [plain.format("Down")],
        "up_block_types": [plain.format("Up")] + [attending.format("Up")] * above,
    }


def _image_path(
    _card: Card,
    model: UNet2DConditionModel | UNet2DModel,
    shape: LatentShape,
    cut: Cut,
    denoising: Denoising,
    prompt: Tensor,
) -> nn.Module:
    return ImageUNetPath(model, shape, cut, denoising, prompt)


def _i2vgen_path(
    card: Card,
    model: I2VGenXLUNet,
    shape: LatentShape,
    cut: Cut,
    denoising: Denoising,
    prompt: Tensor,
) -> nn.Module:
    assert isinstance(card.transformer, I2VGenUNet)
    return I2VGenPath(model, shape, cut, denoising, prompt, card.transformer.fps)


def _stable_video_path(
    card: Card,
    model: UNetSpatioTemporalConditionModel,
    shape: LatentShape,
    cut: Cut,
    denoising: Denoising,
    prompt: Tensor,
) -> nn.Module:
    return StableVideoPath(model, shape, cut, denoising, prompt, _conditions(card))


def _conditions(card: Card) -> StableVideoConditions:
    told, encoder = card.transformer, card.encoder
    assert isinstance(told, StableVideoUNet)
    scaling = encoder.scaling_factor if isinstance(encoder, KlAutoencoder) else 1.0
    return StableVideoConditions(told.fps, told.motion_bucket, told.noise_augmentation, scaling)


def _run_stable_diffusion(
    _card: Card, model: UNet2DConditionModel, latents: Tensor, denoising: Denoising, prompt: Tensor
) -> object:
    frames = denoising.noised(latents)[0].transpose(0, 1)
    every = prompt.expand(len(frames), -1, -1)
    return model(frames, torch.tensor(denoising.timestep), every)


def _run_adm(
    _card: Card, model: UNet2DModel, latents: Tensor, denoising: Denoising, _prompt: Tensor
) -> object:
    frames = denoising.noised(latents)[0].transpose(0, 1)
    return model(frames, torch.tensor(denoising.timestep))


def _run_i2vgen(
    card: Card, model: I2VGenXLUNet, latents: Tensor, denoising: Denoising, prompt: Tensor
) -> object:
    assert isinstance(card.transformer, I2VGenUNet)
    _, channels, frames, rows, columns = latents.shape
    places = later_places((channels, frames, rows, columns))
    return model(
        denoising.noised(latents),
        torch.tensor([denoising.timestep]),
        fps=torch.tensor([card.transformer.fps]),
        image_latents=torch.cat((latents[:, :, :1], places), dim=2),
        image_embeddings=torch.zeros(1, prompt.shape[1]),
        encoder_hidden_states=prompt[None],
    )


def _run_stable_video(
    card: Card,
    model: UNetSpatioTemporalConditionModel,
    latents: Tensor,
    denoising: Denoising,
    prompt: Tensor,
) -> object:
    conditions = _conditions(card)
    first = (latents[:, :, :1] / conditions.scaling_factor).expand_as(latents)
    return model(
        torch.cat((denoising.noised(latents), first), dim=1).transpose(1, 2),
        torch.tensor([denoising.timestep]),
        encoder_hidden_states=prompt[None],
        added_time_ids=conditions.figures,
    )


_FAMILIES: dict[type, UNetFamily] = {
    StableDiffusionUNet: UNetFamily(
        UNet2DConditionModel, _stable_diffusion_config, _image_path, _run_stable_diffusion
    ),
    AdmUNet: UNetFamily(UNet2DModel, _adm_config, _image_path, _run_adm),
    I2VGenUNet: UNetFamily(I2VGenXLUNet, _i2vgen_config, _i2vgen_path, _run_i2vgen),
    StableVideoUNet: UNetFamily(
        UNetSpatioTemporalConditionModel,
        _stable_video_config,
        _stable_video_path,
        _run_stable_video,
    ),
}
