"""What export needs to know of each family of transformers; `unets` has that of UNets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
)
from diffusers import CogVideoXTransformer3DModel as CogVideoX
from diffusers import CosmosTransformer3DModel as Cosmos
from diffusers import HunyuanVideoTransformer3DModel as HunyuanVideo
from diffusers import LTXVideoTransformer3DModel as Ltx
from diffusers import WanTransformer3DModel as Wan
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from vditrack_export.card import (
    Autoencoder,
    Card,
    CogVideoXAutoencoder,
    CogVideoXTransformer,
    CosmosTransformer,
    Feature,
    HunyuanVideoAutoencoder,
    HunyuanVideoTransformer,
    KlAutoencoder,
    LtxAutoencoder,
    LtxTransformer,
    WanAutoencoder,
    WanTransformer,
    transformer_of,
)
from vditrack_export.families.cogvideox.transformer import CogVideoXPath, cogvideox_rotary_axes
from vditrack_export.families.cosmos.transformer import PIPELINE_FPS, CosmosPath
from vditrack_export.families.hunyuan.transformer import (
    PIPELINE_GUIDANCE,
    HunyuanVideoPath,
    hunyuan_rotary_axes,
    unpack_prompt,
)
from vditrack_export.families.ltx.transformer import (
    ROTARY_SCALE,
    LtxPath,
    ltx_channels,
    real_tokens,
)
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.rotary import cosmos_channels, low_frequency_channels, wan_rotary_axes
from vditrack_export.families.wan.transformer import WanKeys

Config = dict[str, Any]
"""What diffusers writes into ``config.json``."""


@dataclass(frozen=True)
class Family:
    """One family: the diffusers class, the way cut out of it, and where its parts are."""

    model: type[nn.Module]
    path: Callable[[Any, LatentShape, Cut, Denoising, Tensor], nn.Module]
    config: Callable[[Any], Config]
    """Configuration of the class from a card's shapes, as far as the shapes say it."""
    blocks: str
    """Name of the list of blocks."""
    channels: Callable[[int, Feature], list[int]]
    """Channels of a head that a card's frequency range keeps."""
    run: Callable[[Any, Tensor, float, Tensor], object]
    """The whole unmodified model on latents with noise [1, C, T, h, w], a timestep and a prompt."""
    refused: Callable[[Config, tuple[int, int, int]], str | None]
    """What in a configuration has no path, if anything, for a grid of tokens [T, rows, columns]."""
    unreached: tuple[tuple[str, str], ...] = ()
    """Lists of blocks that no path reaches: what counts each in a configuration, and its name."""
    text_last: bool = False
    """Whether text tokens come after the video's where they attend together; else before."""

    def cropped(self, layers: int) -> Config:
        """Return what a configuration changes by without the blocks that are not read."""
        return {"num_layers": layers} | {count: 0 for count, _ in self.unreached}


def family_of(card: Card) -> Family:
    """Return the family of a card's transformer.

    Raises:
        InputError: it has a UNet.

    """
    return _FAMILIES[type(transformer_of(card))]


def autoencoder_config(encoder: Autoencoder) -> Config:
    """Configuration of the autoencoder's class from a card's shapes, as far as these say it."""
    if isinstance(encoder, WanAutoencoder):
        channels = encoder.image_channels * encoder.patch**2
        return {
            "base_dim": encoder.base_width,
            "decoder_base_dim": encoder.decoder_base_width,
            "dim_mult": list(encoder.multiples),
            "num_res_blocks": encoder.residual_blocks,
            "temperal_downsample": list(encoder.temporal_downsample),
            "z_dim": encoder.latent_channels,
            "is_residual": encoder.residual,
            "patch_size": encoder.patch if encoder.patch > 1 else None,
            "in_channels": channels,
            "out_channels": channels,
        }
    if isinstance(encoder, LtxAutoencoder):
        return {
            "in_channels": encoder.image_channels,
            "latent_channels": encoder.latent_channels,
            "block_out_channels": list(encoder.widths),
            "down_block_types": ["LTXVideoDownBlock3D"] * len(encoder.widths),
            "layers_per_block": list(encoder.residual_blocks),
            "spatio_temporal_scaling": list(encoder.downsample),
            "patch_size": encoder.patch,
            "patch_size_t": 1,
            "scaling_factor": 1.0,
            "encoder_causal": True,
        }
    if isinstance(encoder, HunyuanVideoAutoencoder):
        return {
            "in_channels": encoder.image_channels,
            "out_channels": encoder.image_channels,
            "block_out_channels": list(encoder.widths),
            "layers_per_block": encoder.residual_blocks,
            "latent_channels": encoder.latent_channels,
            "spatial_compression_ratio": encoder.stride,
            "temporal_compression_ratio": encoder.temporal_stride,
        }
    if isinstance(encoder, KlAutoencoder):
        return _kl_config(encoder)
    return {
        "block_out_channels": list(encoder.widths),
        "layers_per_block": encoder.residual_blocks,
        "latent_channels": encoder.latent_channels,
        "temporal_compression_ratio": encoder.temporal_stride,
    }


def _kl_config(encoder: KlAutoencoder) -> Config:
    levels = len(encoder.widths)
    config = {
        "in_channels": encoder.image_channels,
        "out_channels": encoder.image_channels,
        "block_out_channels": list(encoder.widths),
        "layers_per_block": encoder.residual_blocks,
        "latent_channels": encoder.latent_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "scaling_factor": encoder.scaling_factor,
    }
    if encoder.temporal_decoder:
        return config
    # Later ones shift their latents, or have none of these: no card of a UNet has such a one.
    return config | {
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "act_fn": "silu",
        "use_quant_conv": True,
        "shift_factor": None,
    }


def autoencoder_class(encoder: Autoencoder) -> type[nn.Module]:
    """Return the diffusers class of a card's autoencoder."""
    if isinstance(encoder, KlAutoencoder):
        kind: type[nn.Module] = (
            AutoencoderKLTemporalDecoder if encoder.temporal_decoder else AutoencoderKL
        )
        return kind
    classes: dict[type, type[nn.Module]] = {
        WanAutoencoder: AutoencoderKLWan,
        CogVideoXAutoencoder: AutoencoderKLCogVideoX,
        LtxAutoencoder: AutoencoderKLLTXVideo,
        HunyuanVideoAutoencoder: AutoencoderKLHunyuanVideo,
    }
    return classes[type(encoder)]


def _wan_config(shape: WanTransformer) -> Config:
    return {
        "num_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "attention_head_dim": shape.head_dim,
        "ffn_dim": shape.feed_forward,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "patch_size": list(shape.patch),
        "freq_dim": shape.frequency_dim,
        "text_dim": shape.text_dim,
    }


def _cogvideox_config(shape: CogVideoXTransformer) -> Config:
    return {
        "num_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "attention_head_dim": shape.head_dim,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "patch_size": shape.patch[1],
        "time_embed_dim": shape.time_dim,
        "text_embed_dim": shape.text_dim,
        "max_text_seq_length": shape.text_tokens,
        "use_rotary_positional_embeddings": shape.rotary,
    }


def _cosmos_config(shape: CosmosTransformer) -> Config:
    return {
        "num_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "attention_head_dim": shape.head_dim,
        "patch_size": list(shape.patch),
        "out_channels": shape.out_channels,
        # One more channel marks the frames that are conditions.
        "in_channels": shape.in_channels + 1,
        "text_embed_dim": shape.text_dim,
        "adaln_lora_dim": shape.modulation_dim,
        "mlp_ratio": shape.feed_forward / shape.width,
        "concat_padding_mask": True,
        "extra_pos_embed_type": None,
        "rope_scale": list(shape.rope_scale),
    }


def _ltx_config(shape: LtxTransformer) -> Config:
    return {
        "num_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "attention_head_dim": shape.head_dim,
        "cross_attention_dim": shape.width,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "patch_size": 1,
        "patch_size_t": 1,
        "caption_channels": shape.text_dim,
        "norm_elementwise_affine": False,
    }


def _hunyuan_config(shape: HunyuanVideoTransformer) -> Config:
    return {
        "num_layers": shape.layers,
        "num_single_layers": shape.single_layers,
        "num_refiner_layers": shape.refiner_layers,
        "num_attention_heads": shape.heads,
        "attention_head_dim": shape.head_dim,
        "mlp_ratio": shape.feed_forward / shape.width,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "patch_size": shape.patch[1],
        "patch_size_t": shape.patch[0],
        "qk_norm": "rms_norm",
        "text_embed_dim": shape.text_dim,
        "pooled_projection_dim": shape.pooled_dim,
        "rope_axes_dim": list(hunyuan_rotary_axes(shape.head_dim)),
    }


def _run_wan(model: Wan, noised: Tensor, timestep: float, prompt: Tensor) -> object:
    return model(noised, torch.tensor([timestep]), prompt[None])


def _run_cogvideox(model: CogVideoX, noised: Tensor, timestep: float, prompt: Tensor) -> object:
    rotary = model.config.use_rotary_positional_embeddings
    tables = _pipeline_rotary(model.config, noised.shape) if rotary else None
    instant = torch.tensor([timestep])
    return model(noised.transpose(1, 2), prompt[None], instant, image_rotary_emb=tables)


def _pipeline_rotary(config: Any, shape: Sequence[int]) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Rotary tables as ``CogVideoXPipeline`` makes them for latents [1, C, T, h, w]."""
    # Pipelines need transformers, of which nothing else here has need.
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import (  # noqa: PLC0415
        get_resize_crop_region_for_grid,
    )

    side = config.patch_size
    rows, columns = shape[3] // side, shape[4] // side
    trained = config.sample_width // side, config.sample_height // side
    region = get_resize_crop_region_for_grid((rows, columns), *trained)
    tables: tuple[Tensor, Tensor] = get_3d_rotary_pos_embed(
        embed_dim=config.attention_head_dim,
        crops_coords=region,
        grid_size=(rows, columns),
        temporal_size=shape[2],
    )
    return tables


def _run_cosmos(model: Cosmos, noised: Tensor, timestep: float, prompt: Tensor) -> object:
    _, _, frames, rows, columns = noised.shape
    # The model would resize a padding mask with torchvision; here it comes as a second channel of
    # the other mask, which stands in the same place.
    model.register_to_config(concat_padding_mask=False)
    unmarked = torch.zeros(1, 2, frames, rows, columns)
    instant = torch.tensor([timestep])
    return model(noised, instant, prompt[None], fps=PIPELINE_FPS, condition_mask=unmarked)


def _run_ltx(model: Ltx, noised: Tensor, timestep: float, prompt: Tensor) -> object:
    _, _, frames, rows, columns = noised.shape
    return model(
        noised.flatten(2).transpose(1, 2),
        prompt[None],
        torch.tensor([timestep]),
        encoder_attention_mask=real_tokens(prompt)[None],
        num_frames=frames,
        height=rows,
        width=columns,
        rope_interpolation_scale=ROTARY_SCALE,
    )


def _run_hunyuan(model: HunyuanVideo, noised: Tensor, timestep: float, prompt: Tensor) -> object:
    given = unpack_prompt(prompt, model.config.pooled_projection_dim)
    return model(
        noised,
        torch.tensor([timestep]),
        given.tokens[None],
        given.mask[None],
        given.pooled[None],
        torch.tensor([PIPELINE_GUIDANCE]),
    )


def _wan_channels(head_dim: int, feature: Feature) -> list[int]:
    return low_frequency_channels(wan_rotary_axes(head_dim), feature.frequency_range)


def _cogvideox_channels(head_dim: int, feature: Feature) -> list[int]:
    return low_frequency_channels(cogvideox_rotary_axes(head_dim), feature.frequency_range)


def _cosmos_channels(head_dim: int, feature: Feature) -> list[int]:
    return cosmos_channels(head_dim, feature.frequency_range, feature.frequency_layout)


def _ltx_channels(head_dim: int, feature: Feature) -> list[int]:
    return ltx_channels(head_dim, feature.frequency_range)


def _hunyuan_channels(head_dim: int, feature: Feature) -> list[int]:
    return low_frequency_channels(hunyuan_rotary_axes(head_dim), feature.frequency_range)


def _refused_wan(config: Config, grid: tuple[int, int, int]) -> str | None:
    if config.get("image_dim") is not None or config.get("added_kv_proj_dim") is not None:
        return "the transformer wants an image beside the prompt"
    positions = config.get("rope_max_seq_len", 1024)
    if max(grid) > positions:
        return f"the window is longer than the transformer's {positions} positions"
    return None


def _refused_cogvideox(config: Config, _grid: tuple[int, int, int]) -> str | None:
    if config.get("patch_size_t") is not None or config.get("ofs_embed_dim") is not None:
        return "CogVideoX 1.5 has patches in time, which have no path yet"
    if config.get("use_learned_positional_embeddings"):
        return "CogVideoX that continues an image has learned positions, which have no path"
    return None


def _refused_cosmos(config: Config, grid: tuple[int, int, int]) -> str | None:
    if max(grid) > 128:
        return "the window is longer than the transformer's 128 positions"
    if config.get("extra_pos_embed_type", "learnable") is not None:
        return "Cosmos 1 has learnable positions, which have no path"
    conditions = ("img_context_dim_in", "use_crossattn_projection", "controlnet_block_every_n")
    if any(config.get(name) for name in conditions):
        return "Cosmos 2.5 has conditions that have no path yet"
    return None


def _refused_hunyuan(config: Config, _grid: tuple[int, int, int]) -> str | None:
    if config.get("image_condition_type") is not None:
        return "HunyuanVideo that continues an image has conditions, which have no path"
    return None


def _refused_nothing(_config: Config, _grid: tuple[int, int, int]) -> str | None:
    return None


_FAMILIES: dict[type, Family] = {
    WanTransformer: Family(
        Wan, WanKeys, _wan_config, "blocks", _wan_channels, _run_wan, _refused_wan
    ),
    CogVideoXTransformer: Family(
        CogVideoX,
        CogVideoXPath,
        _cogvideox_config,
        "transformer_blocks",
        _cogvideox_channels,
        _run_cogvideox,
        _refused_cogvideox,
    ),
    CosmosTransformer: Family(
        Cosmos,
        CosmosPath,
        _cosmos_config,
        "transformer_blocks",
        _cosmos_channels,
        _run_cosmos,
        _refused_cosmos,
    ),
    LtxTransformer: Family(
        Ltx,
        LtxPath,
        _ltx_config,
        "transformer_blocks",
        _ltx_channels,
        _run_ltx,
        _refused_nothing,
    ),
    HunyuanVideoTransformer: Family(
        HunyuanVideo,
        HunyuanVideoPath,
        _hunyuan_config,
        "transformer_blocks",
        _hunyuan_channels,
        _run_hunyuan,
        _refused_hunyuan,
        unreached=(("num_single_layers", "single_transformer_blocks"),),
        text_last=True,
    ),
}
