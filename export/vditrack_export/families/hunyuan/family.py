"""The HunyuanVideo family."""

import gc
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from torch import Tensor

from vditrack.bundle.manifest import Input
from vditrack_export.checkpoints.weights import Config
from vditrack_export.families.base_family import Grid, LoadTextEncoder
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.diffusers_autoencoder import Autoencoder
from vditrack_export.families.encoder_form import EncoderForm, separate_form
from vditrack_export.families.hunyuan.autoencoder import (
    HunyuanVideoClipEncoder,
    HunyuanVideoFrameEncoder,
)
from vditrack_export.families.hunyuan.shapes import HunyuanVideoAutoencoder, HunyuanVideoTransformer
from vditrack_export.families.hunyuan.transformer import (
    PIPELINE_GUIDANCE,
    HunyuanPrompt,
    HunyuanVideoPath,
    hunyuan_rotary_axes,
    unpack_prompt,
)
from vditrack_export.families.rotary import RotaryAxes
from vditrack_export.families.text_encoders import Clip, TextEncoder
from vditrack_export.families.transformer_denoiser import TransformerDenoiser


class HunyuanVideoDenoiser(TransformerDenoiser[HunyuanVideoTransformer]):
    """A diffusers ``HunyuanVideoTransformer3DModel``."""

    model_class = HunyuanVideoTransformer3DModel
    lora_loader = "HunyuanVideoLoraLoaderMixin"
    text_encoders = ("", "_2")
    path_class = HunyuanVideoPath
    blocks = "transformer_blocks"
    attention = "attn"
    heads_first = False
    unreached = (("num_single_layers", "single_transformer_blocks"),)
    text_last = True

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        return super().config() | {
            "num_single_layers": shape.single_layers,
            "num_refiner_layers": shape.refiner_layers,
            "mlp_ratio": shape.feed_forward / shape.width,
            "patch_size": shape.patch[1],
            "patch_size_t": shape.patch[0],
            "qk_norm": "rms_norm",
            "text_embed_dim": shape.text_dim,
            "pooled_projection_dim": shape.pooled_dim,
            "rope_axes_dim": list(hunyuan_rotary_axes(shape.head_dim)),
        }

    @property
    def rotary_axes(self) -> RotaryAxes:
        """Channels of a head that rotate with time, height and width."""
        return hunyuan_rotary_axes(self.shape.head_dim)

    def refusal(self, config: Config, grid: Grid) -> str | None:
        """Refuse models that continue an image."""
        if config.get("image_condition_type") is not None:
            return "HunyuanVideo that continues an image has conditions, which have no path"
        return None

    def run_noised(
        self,
        model: HunyuanVideoTransformer3DModel,
        noised: Tensor,
        timestep: Tensor,
        prompt: Tensor,
    ) -> object:
        """Run the unmodified model as its pipeline does."""
        given = unpack_prompt(prompt, model.config.pooled_projection_dim)
        guidance = torch.tensor([PIPELINE_GUIDANCE])
        return model(
            noised, timestep, given.tokens[None], given.mask[None], given.pooled[None], guidance
        )

    @property
    def prompt_shape(self) -> tuple[int, int]:
        """Rows and columns of a prompt's embedding; the pooled prompt has a row of its own."""
        return 1 + self.shape.text_tokens, self.shape.text_dim

    def embed_empty_prompt(self, text_encoder: TextEncoder, load: LoadTextEncoder) -> Tensor:
        """Run both text encoders on the empty prompt: Llama in a template that is cut off, CLIP."""
        # Pipelines need transformers, which loading text encoders needs too.
        tokenizer, llama = load("", text_encoder.model_class)
        from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import (  # noqa: PLC0415
            DEFAULT_PROMPT_TEMPLATE,
        )

        template, start = DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]
        with torch.no_grad():
            # No token sees those after it, so padding may come when all is done.
            words = tokenizer([template.format("")], return_tensors="pt")
            states = llama(words.input_ids, output_hidden_states=True).hidden_states
            tokens = states[-3][0, start:].float()
            del llama, states
            gc.collect()
            tokenizer, clip = load("_2", Clip.model_class)
            pooled = clip(tokenizer([""], return_tensors="pt").input_ids).pooler_output[0].float()
        padded = F.pad(tokens, (0, 0, 0, self.shape.text_tokens - len(tokens)))
        return HunyuanPrompt(padded, pooled).packed()


class HunyuanVideoVae(Autoencoder[HunyuanVideoAutoencoder]):
    """A diffusers ``AutoencoderKLHunyuanVideo``."""

    model_class = AutoencoderKLHunyuanVideo

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""
        shape = self.shape
        return {
            "in_channels": shape.image_channels,
            "out_channels": shape.image_channels,
            "block_out_channels": list(shape.widths),
            "layers_per_block": shape.residual_blocks,
            "latent_channels": shape.latent_channels,
            "spatial_compression_ratio": shape.stride,
            "temporal_compression_ratio": shape.temporal_stride,
        }

    def form(self, model: AutoencoderKLHunyuanVideo, size: Input) -> EncoderForm:
        """Return a graph of single frames, or of a whole window with temporal compression."""
        if size.temporal_stride == 1:
            return separate_form(HunyuanVideoFrameEncoder(model), frames=1, size=size)
        return separate_form(HunyuanVideoClipEncoder(model), frames=size.frames, size=size)

    def decode(self, model: Any, latents: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Decode latents with the unmodified model, each alone if no frames share a latent."""
        clips = [latents] if temporal_stride > 1 else torch.split(latents, 1, dim=2)
        return torch.cat([model.decode(clip).sample for clip in clips], dim=2)

    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model."""
        clip = as_clip(frames)
        clips = torch.split(clip, 1, dim=2) if temporal_stride == 1 else [clip]
        with torch.no_grad():
            modes = [model.encode(alone).latent_dist.mode() for alone in clips]
            latents: Tensor = torch.cat(modes, dim=2) * model.config["scaling_factor"]
        return latents


DENOISERS = {HunyuanVideoTransformer: HunyuanVideoDenoiser}
ENCODERS = {HunyuanVideoAutoencoder: HunyuanVideoVae}
