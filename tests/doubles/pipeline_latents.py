"""Latents as the pipelines of diffusers make them of the pictures of a video."""

from types import SimpleNamespace

import torch
from diffusers import AutoencoderKLWan, WanVideoToVideoPipeline
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor, nn


def prepared(clip: Tensor) -> Tensor:
    """As a pipeline prepares the pictures of a video: [1, 3, F, H, W]."""
    pictures = [Image.fromarray(frame.numpy()) for frame in clip]
    return VideoProcessor(vae_scale_factor=8).preprocess_video(pictures)


def pipeline_latents(pipeline: type, vae: nn.Module, moments: Tensor, clip: Tensor) -> Tensor:
    """What a pipeline makes of an autoencoder's result before it mixes in any noise."""
    mean, _ = moments.chunk(2, dim=1)
    encoded = SimpleNamespace(latents=mean)
    stage = SimpleNamespace(
        vae=SimpleNamespace(config=vae.config, dtype=torch.float32, encode=lambda _: encoded),
        scheduler=SimpleNamespace(add_noise=lambda latents, *_: latents, init_noise_sigma=1.0),
        vae_scale_factor_temporal=4,
        vae_scale_factor_spatial=8,
        vae_scaling_factor_image=vae.config.scaling_factor if "scaling_factor" in vae.config else 0,
    )
    return pipeline.prepare_latents(stage, prepared(clip), dtype=torch.float32)


def wan_latents(vae: AutoencoderKLWan, clip: Tensor, temporal_stride: int) -> Tensor:
    if temporal_stride == 1:
        moments = vae.quant_conv(vae.encoder(prepared(clip)))
    else:
        moments = vae.encode(prepared(clip)).latent_dist.parameters
    return pipeline_latents(WanVideoToVideoPipeline, vae, moments, clip)
