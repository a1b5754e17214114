"""The Wan family: Wan 2.1 and Wan 2.2."""

from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from vditrack.bundle.manifest import Input
from vditrack_export.checkpoints.weights import Config
from vditrack_export.families.base_family import Grid
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.diffusers_autoencoder import Autoencoder
from vditrack_export.families.encoder_form import EncoderForm, streaming_form
from vditrack_export.families.transformer_denoiser import TransformerDenoiser
from vditrack_export.families.wan.autoencoder import WanStreamEncoder
from vditrack_export.families.wan.shapes import WanAutoencoder, WanTransformer
from vditrack_export.families.wan.transformer import WanPath

WanTransformerT = TypeVar("WanTransformerT", bound=WanTransformer)


class WanDenoiser(TransformerDenoiser[WanTransformerT]):
    """A diffusers ``WanTransformer3DModel``."""

    model_class = WanTransformer3DModel
    lora_loader = "WanLoraLoaderMixin"
    path_class = WanPath
    blocks = "blocks"

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        return super().config() | {
            "ffn_dim": shape.feed_forward,
            "patch_size": list(shape.patch),
            "freq_dim": shape.frequency_dim,
            "text_dim": shape.text_dim,
        }

    def refusal(self, config: Config, grid: Grid) -> str | None:
        """Refuse image conditions, and windows longer than the rotary tables."""
        if config.get("image_dim") is not None or config.get("added_kv_proj_dim") is not None:
            return "the transformer wants an image beside the prompt"
        positions = config.get("rope_max_seq_len", 1024)
        if max(grid) > positions:
            return f"the window is longer than the transformer's {positions} positions"
        return None

    def run_noised(
        self, model: WanTransformer3DModel, noised: Tensor, timestep: Tensor, prompt: Tensor
    ) -> object:
        """Run the unmodified model as its pipeline does."""
        return model(noised, timestep, prompt[None])


class WanVae(Autoencoder[WanAutoencoder]):
    """A diffusers ``AutoencoderKLWan``."""

    model_class = AutoencoderKLWan

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        channels = shape.image_channels * shape.patch**2
        return {
            "base_dim": shape.base_width,
            "decoder_base_dim": shape.decoder_base_width,
            "dim_mult": list(shape.multiples),
            "num_res_blocks": shape.residual_blocks,
            "temperal_downsample": list(shape.temporal_downsample),
            "z_dim": shape.latent_channels,
            "is_residual": shape.residual,
            "patch_size": shape.patch if shape.patch > 1 else None,
            "in_channels": channels,
            "out_channels": channels,
        }

    def random_config(self) -> Config:
        """Return latent statistics of mean 0 and deviation 1."""
        count = self.shape.latent_channels
        return {"latents_mean": [0.0] * count, "latents_std": [1.0] * count}

    def form(self, model: AutoencoderKLWan, size: Input) -> EncoderForm:
        """Return graphs that encode group after group, with caches."""
        return streaming_form(WanStreamEncoder(model, size.temporal_stride), size)

    def decode(self, model: Any, latents: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Decode latents with the unmodified model."""
        if temporal_stride > 1:
            return super().decode(model, latents, temporal_stride)
        # Without a cache, diffusers' decoder leaves temporal upsampling out.
        frames: Tensor = model.decoder(model.post_quant_conv(latents))
        return frames

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        clip = as_clip(frames)
        with torch.no_grad():
            if temporal_stride > 1:
                mode = model.encode(clip).latent_dist.mode()
            else:
                # Without a cache, diffusers' encoder leaves temporal downsampling out.
                mode, _ = model.quant_conv(model.encoder(clip)).chunk(2, dim=1)
        mean, std = (
            torch.tensor(model.config[f"latents_{name}"]).reshape(1, -1, 1, 1, 1)
            for name in ("mean", "std")
        )
        return torch.as_tensor((mode - mean) / std)


DENOISERS = {WanTransformer: WanDenoiser[WanTransformer]}
ENCODERS = {WanAutoencoder: WanVae}
