"""The CogVideoX family: CogVideoX-2B and CogVideoX-5B."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor

from vditrack.bundle.manifest import Input
from vditrack.errors import InputError
from vditrack_export.checkpoints.weights import Config
from vditrack_export.families.base_family import Grid
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.cogvideox.autoencoder import CogVideoXClipEncoder
from vditrack_export.families.cogvideox.shapes import CogVideoXAutoencoder, CogVideoXTransformer
from vditrack_export.families.cogvideox.transformer import CogVideoXPath, cogvideox_rotary_axes
from vditrack_export.families.diffusers_autoencoder import Autoencoder
from vditrack_export.families.encoder_form import EncoderForm, separate_form
from vditrack_export.families.rotary import RotaryAxes
from vditrack_export.families.transformer_denoiser import TransformerDenoiser

_SNR_SHIFTS = (3.0, 1.0)
"""``snr_shift_scale`` in the scheduler's configuration of CogVideoX-2B and of CogVideoX-5B."""
_SAME_NOISE_LEVEL = 1e-4


class CogVideoXDenoiser(TransformerDenoiser[CogVideoXTransformer]):
    """A diffusers ``CogVideoXTransformer3DModel``."""

    model_class = CogVideoXTransformer3DModel
    lora_loader = "CogVideoXLoraLoaderMixin"
    path_class = CogVideoXPath
    prompt_padding = "kept"
    blocks = "transformer_blocks"

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        return super().config() | {
            "patch_size": shape.patch[1],
            "time_embed_dim": shape.time_dim,
            "text_embed_dim": shape.text_dim,
            "max_text_seq_length": shape.text_tokens,
            "use_rotary_positional_embeddings": shape.rotary,
        }

    @property
    def rotary_axes(self) -> RotaryAxes:
        """Channels of a head that rotate with time, height and width."""
        return cogvideox_rotary_axes(self.shape.head_dim)

    def refusal(self, config: Config, grid: Grid) -> str | None:
        """Refuse CogVideoX 1.5, and models that continue an image."""
        if config.get("patch_size_t") is not None or config.get("ofs_embed_dim") is not None:
            return "CogVideoX 1.5 has patches in time, which have no path yet"
        if config.get("use_learned_positional_embeddings"):
            return "CogVideoX that continues an image has learned positions, which have no path"
        return None

    def run_noised(
        self, model: CogVideoXTransformer3DModel, noised: Tensor, timestep: Tensor, prompt: Tensor
    ) -> object:
        """Run the unmodified model as its pipeline does."""
        rotary = model.config.use_rotary_positional_embeddings
        tables = _pipeline_rotary(model.config, noised.shape) if rotary else None
        return model(noised.transpose(1, 2), prompt[None], timestep, image_rotary_emb=tables)

    def step_of_noise(self, feature: Feature, noise: float) -> tuple[float, float, float]:
        """Return timestep, signal and noise of the nearest of CogVideoX's thousand steps."""
        levels = _schedule_levels(feature)
        step = int((levels - noise).abs().argmin())
        level = float(levels[step])
        return float(step), round(math.sqrt(1 - level**2), 8), round(level, 8)


def _schedule_levels(feature: Feature) -> Tensor:
    """Return noise levels [1000] of the schedule that the card's own step lies on."""
    for shift in _SNR_SHIFTS:
        scheduler = CogVideoXDDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            snr_shift_scale=shift,
        )
        levels = torch.as_tensor((1 - scheduler.alphas_cumprod).clamp_min(0).sqrt())
        own = min(int(feature.timestep), len(levels) - 1)
        if abs(float(levels[own]) - feature.noise_level) < _SAME_NOISE_LEVEL:
            return levels
    raise InputError(
        "timestep and noise_level of the card are on no known schedule of CogVideoX, so no other "
        "level can be tried. Correct them, or give --noise the card's own level."
    )


def _pipeline_rotary(config: Any, shape: Sequence[int]) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return the rotary tables that ``CogVideoXPipeline`` makes for latents [1, C, T, h, w]."""
    # Pipelines need transformers, which nothing else here does.
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


class CogVideoXVae(Autoencoder[CogVideoXAutoencoder]):
    """A diffusers ``AutoencoderKLCogVideoX``."""

    model_class = AutoencoderKLCogVideoX

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        return {
            "block_out_channels": list(self.shape.widths),
            "layers_per_block": self.shape.residual_blocks,
            "latent_channels": self.shape.latent_channels,
            "temporal_compression_ratio": self.shape.temporal_stride,
        }

    def form(self, model: AutoencoderKLCogVideoX, size: Input) -> EncoderForm:
        """Return a graph that encodes a whole window: its norms see all frames."""
        clip = CogVideoXClipEncoder(model, size.temporal_stride)
        return separate_form(clip, frames=size.frames, size=size)

    def decode(self, model: Any, latents: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Decode latents with the unmodified model."""
        for block in model.decoder.up_blocks:
            for sampler in block.upsamplers or ():
                sampler.compress_time &= temporal_stride > 1
        return super().decode(model, latents, temporal_stride)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        with torch.no_grad():
            if temporal_stride == 1:
                # diffusers has no such form; tests compare this one with a changed model.
                return torch.as_tensor(CogVideoXClipEncoder(model, 1)(frames))
            mode = model.encode(as_clip(frames)).latent_dist.mode()
            return torch.as_tensor(mode * model.config["scaling_factor"])


DENOISERS = {CogVideoXTransformer: CogVideoXDenoiser}
ENCODERS = {CogVideoXAutoencoder: CogVideoXVae}
