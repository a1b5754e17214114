"""Hidden states of I2VGen-XL's UNet, a window of frames after one denoising step.

TED (arXiv 2512.02339) reads the third block of its decoder as features of motion, at a step with
much noise, and does not print its other conditions. Here they are those of its own pipeline for a
clip that continues the window's first frame: that frame's latents, clean, and for the other frames
their position in the window. The image embedding is zero and the prompt empty, as in the pipeline's
unconditional guidance.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from diffusers import I2VGenXLUNet
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLTransformerTemporalEncoder
from torch import Tensor, nn

from vditrack_export.families.feature_path import NoisedPath
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.unet.layers import (
    Residual,
    SelfAttention,
    SpatialTransformer,
    TemporalTransformer,
    to_clip,
    to_frames,
)
from vditrack_export.families.unet.path import UNetWalk, last_frames, layer_part

_POOLED = 32
"""Side that the model pools the first frame's latents to (diffusers' ``I2VGenXLUNet``)."""


class I2VGenPath(NoisedPath):
    """Maps latents to the hidden states of one decoder layer.

    Args:
        model: The whole UNet in FP32; its submodules are shared.
        latent_shape: Channels, frames, rows and columns of the latents.
        cut: ``block`` is the layer, from 0; all its channels are read.
        denoising: The denoising step.
        prompt: Output of the text encoder, float32 [tokens, text_dim].
        fps: Frame rate that the model is given, in frames per second.

    """

    places: Tensor

    def __init__(
        self,
        model: I2VGenXLUNet,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
        fps: float,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, denoising)
        self.described = cut.described
        self.register_buffer("places", frame_positions(latent_shape))
        self.project = model.image_latents_proj_in
        self.encode = _TemporalEncoder(model.image_latents_temporal_encoder)
        self.conv_in = model.conv_in
        with torch.no_grad():
            self.first_tokens = _FirstTokens(model.image_latents_context_embedding, latent_shape)
            self.transformer_in = TemporalTransformer(model.transformer_in)
            steps = partial(
                _steps,
                _embed_timestep(model, denoising.timestep, fps),
                _embed_context(model, prompt),
            )
            self.walk = UNetWalk(model, steps, lambda sampler: sampler, cut.block)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        first = latents[:, :, :1]
        noised = self.noised(latents)
        encoded = self._encode_images(torch.cat((first, self.places), dim=2))
        frames = self.conv_in(to_frames(torch.cat((noised, encoded), dim=1)))
        hidden = self.walk(self.transformer_in(frames), self.first_tokens(first[:, :, 0]))
        return last_frames(hidden, self.described)

    def _encode_images(self, images: Tensor) -> Tensor:
        """Encode the first frame and the positions [1, C, T, h, w] to the same shape."""
        projected = self.project(to_frames(images))
        frames, channels, rows, columns = projected.shape
        places = projected.permute(2, 3, 0, 1).flatten(0, 1)
        encoded = self.encode(places).reshape(rows, columns, frames, channels)
        return to_clip(encoded.permute(2, 3, 0, 1))


def frame_positions(latent_shape: LatentShape) -> Tensor:
    """Return the positions of the frames after the first, from above 0 to 1, as latents.

    They are those of ``I2VGenXLPipeline.prepare_image_latents``: float32 [1, C, T - 1, h, w].
    """
    channels, frames, rows, columns = latent_shape
    places = torch.arange(1, frames) / max(frames - 1, 1)
    return places[None, None, :, None, None].expand(1, channels, -1, rows, columns).clone()


def _steps(instant: Tensor, context: Tensor, block: nn.Module, index: int) -> Iterator[nn.Module]:
    yield from (Residual(part, instant) for part in layer_part(block, "resnets", index))
    yield from (_OverTime(part) for part in layer_part(block, "temp_convs", index))
    yield from (
        SpatialTransformer(part, context) for part in layer_part(block, "attentions", index)
    )
    yield from (TemporalTransformer(part) for part in layer_part(block, "temp_attentions", index))


def _embed_timestep(model: I2VGenXLUNet, timestep: float, fps: float) -> Tensor:
    """Return the embedding [1, width] of the timestep and of the frame rate."""
    instant: Tensor = model.time_embedding(model.time_proj(torch.tensor([timestep])))
    rate: Tensor = model.fps_embedding(model.time_proj(torch.tensor([fps])))
    return instant + rate


def _embed_context(model: I2VGenXLUNet, prompt: Tensor) -> Tensor:
    """Return the prompt's tokens and those of a zero image embedding, [tokens, text_dim]."""
    image = model.context_embedding(torch.zeros(1, prompt.shape[1]))
    return torch.cat((prompt, image.reshape(-1, prompt.shape[1])))


class _OverTime(nn.Module):
    """Convolutions over time, with a shortcut around them."""

    def __init__(self, layer: TemporalConvLayer) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(layer.conv1, layer.conv2, layer.conv3, layer.conv4)

    def forward(self, x: Tensor) -> Tensor:
        return x + to_frames(self.convolutions(to_clip(x)))


class _TemporalEncoder(nn.Module):
    """Encodes tokens [B, N, C] by attention to each other and a feed-forward network."""

    def __init__(self, encoder: I2VGenXLTransformerTemporalEncoder) -> None:
        super().__init__()
        self.norm, self.attention = encoder.norm1, SelfAttention(encoder.attn1)
        self.feed_forward = encoder.ff

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm(tokens))
        encoded: Tensor = tokens + self.feed_forward(tokens)
        return encoded


class _FirstTokens(nn.Module):
    """The first frame's latents [1, C, h, w] as tokens of the context, [M, text_dim]."""

    def __init__(self, embedding: nn.Sequential, latent_shape: LatentShape) -> None:
        super().__init__()
        before, activation, _, *after = embedding.children()
        self.before = nn.Sequential(before, activation)
        self.after = nn.Sequential(*after)
        # The pooling as two products: ONNX has none to a size that does not divide the picture's.
        self.pool_rows, self.pool_columns = (_pooling(side) for side in latent_shape[2:])

    def forward(self, first: Tensor) -> Tensor:
        narrow = self.pool_columns(self.before(first))
        pooled = self.pool_rows(narrow.transpose(-2, -1)).transpose(-2, -1)
        tokens: Tensor = self.after(pooled).flatten(2)[0].T
        return tokens


def _pooling(side: int) -> nn.Linear:
    """Return adaptive average pooling of the last axis, from ``side`` numbers to 32."""
    pooling = nn.Linear(side, _POOLED, bias=False)
    pooling.weight.copy_(F.adaptive_avg_pool1d(torch.eye(side)[None], _POOLED)[0].T)
    return pooling
