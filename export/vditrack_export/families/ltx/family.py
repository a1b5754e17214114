"""The LTX-Video family: LTX-Video 0.9.0 and 0.9.1."""

from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import Tensor

from vditrack.bundle.manifest import Input
from vditrack_export.checkpoints.weights import Config
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.diffusers_autoencoder import Autoencoder
from vditrack_export.families.encoder_form import EncoderForm, streaming_form
from vditrack_export.families.ltx.autoencoder import LtxStreamEncoder
from vditrack_export.families.ltx.shapes import LtxAutoencoder, LtxTransformer
from vditrack_export.families.ltx.transformer import (
    ROTARY_SCALE,
    LtxPath,
    ltx_channels,
    real_tokens,
)
from vditrack_export.families.transformer_denoiser import TransformerDenoiser


class LtxDenoiser(TransformerDenoiser[LtxTransformer]):
    """A diffusers ``LTXVideoTransformer3DModel``."""

    model_class = LTXVideoTransformer3DModel
    lora_loader = "LTXVideoLoraLoaderMixin"
    path_class = LtxPath
    prompt_padding = "zeroed"
    # Its angles reach 16,000, where FP32 is exact to 0.001: steps, whose places are those of a
    # window, round them otherwise than one pass over a clip does.
    step_error = 3e-4
    blocks = "transformer_blocks"

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        return super().config() | {
            "cross_attention_dim": shape.width,
            "patch_size": 1,
            "patch_size_t": 1,
            "caption_channels": shape.text_dim,
            "norm_elementwise_affine": False,
        }

    def channels(self, feature: Feature) -> tuple[int, ...]:
        """Return the channels of each head that a card's frequency range keeps."""
        return tuple(ltx_channels(self.shape.head_dim, feature.frequency_range))

    def run_noised(
        self, model: LTXVideoTransformer3DModel, noised: Tensor, timestep: Tensor, prompt: Tensor
    ) -> object:
        """Run the unmodified model as its pipeline does."""
        _, _, frames, rows, columns = noised.shape
        return model(
            noised.flatten(2).transpose(1, 2),
            prompt[None],
            timestep,
            encoder_attention_mask=real_tokens(prompt)[None],
            num_frames=frames,
            height=rows,
            width=columns,
            rope_interpolation_scale=ROTARY_SCALE,
        )


class LtxVae(Autoencoder[LtxAutoencoder]):
    """A diffusers ``AutoencoderKLLTXVideo``."""

    model_class = AutoencoderKLLTXVideo

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        return {
            "in_channels": shape.image_channels,
            "latent_channels": shape.latent_channels,
            "block_out_channels": list(shape.widths),
            "down_block_types": ["LTXVideoDownBlock3D"] * len(shape.widths),
            "layers_per_block": list(shape.residual_blocks),
            "spatio_temporal_scaling": list(shape.downsample),
            "patch_size": shape.patch,
            "patch_size_t": 1,
            "scaling_factor": 1.0,
            "encoder_causal": True,
        }

    def random_config(self) -> Config:
        """Return the smallest decoder: cards do not describe it, and no bundle has it.

        `build_decoder` takes that of the releases 0.9.0 and 0.9.1, which are diffusers' defaults.
        """
        return {
            "decoder_block_out_channels": [8],
            "decoder_layers_per_block": [1, 1],
            "decoder_spatio_temporal_scaling": [False],
            "decoder_inject_noise": [False, False],
            "upsample_residual": [False],
            "upsample_factor": [1],
        }

    def form(self, model: AutoencoderKLLTXVideo, size: Input) -> EncoderForm:
        """Return graphs that encode group after group, with caches."""
        return streaming_form(LtxStreamEncoder(model), size)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        with torch.no_grad():
            mode = model.encode(as_clip(frames)).latent_dist.mode()
            mean, std = (
                figures.reshape(1, -1, 1, 1, 1)
                for figures in (model.latents_mean, model.latents_std)
            )
            return torch.as_tensor((mode - mean) / std)


DENOISERS = {LtxTransformer: LtxDenoiser}
ENCODERS = {LtxAutoencoder: LtxVae}
