"""A card's loaded models, and the graphs and latents that an export takes from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vditrack.bundle.folder import FEATURES
from vditrack.bundle.manifest import Input
from vditrack.coordinates import Grid
from vditrack_export.card import Card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.encoder_form import EncoderForm, Graph
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.step_path import StepPath
from vditrack_export.pipeline.checkpoint import Checkpoint, load_checkpoint, random_checkpoint
from vditrack_export.pipeline.empty_prompt import check_text_encoder, empty_prompt, random_prompt


@dataclass(frozen=True)
class Backbone:
    """A card with its models and its prompt."""

    card: Card
    checkpoint: Checkpoint
    prompt: Tensor
    """The embedding of the empty prompt, float32 [tokens, text_dim]."""
    random: bool
    """Whether the weights are random."""

    @cached_property
    def channels(self) -> tuple[int, ...]:
        """The channels that are read of each head, rising."""
        return self.card.family.denoiser.channels(self.card.feature)

    @property
    def grid(self) -> Grid:
        """The grid of the descriptors at the card's size."""
        size, cell = self.card.input, self.card.cell
        return Grid(size.height // cell, size.width // cell, cell)

    @property
    def denoising(self) -> Denoising:
        """The card's denoising step."""
        return read_denoising(self.card.feature)

    def cut(self, size: Input) -> Cut:
        """Return what is read of the transformer for windows of a size."""
        feature = self.card.feature
        return Cut(
            block=feature.block,
            heads=feature.heads,
            channels=self.channels,
            described=size.described_latents,
            tensor=feature.tensor,
            rotated=feature.rotated,
        )

    def encoder_form(self, size: Input) -> EncoderForm:
        """Return the encoder's graphs for windows of a size."""
        return self.card.family.encoder.form(self.checkpoint.encoder, size)

    def latent_shape(self, size: Input) -> LatentShape:
        """Return the shape of the latents of a window: channels, frames, rows, columns."""
        encoder = self.card.encoder
        stride = encoder.stride
        return (
            encoder.latent_channels,
            size.latents,
            size.height // stride,
            size.width // stride,
        )

    def feature_graph(self, size: Input) -> Graph:
        """Return the graph from latents to descriptors for windows of a size.

        It shares the modules of the transformer. With cached keys it takes a chunk of latents.
        """
        shape, denoiser = self.latent_shape(size), self.card.family.denoiser
        given = (self.checkpoint.transformer, shape, self.cut(size), self.denoising, self.prompt)
        if size.attention != "window":
            return step_graph(denoiser.step_path(*given).eval())
        path = denoiser.path(*given)
        return Graph(FEATURES, path.eval(), {"latents": torch.zeros(1, *shape)}, ("descriptors",))

    def original_latents(self, frames: Tensor, temporal_stride: int) -> Tensor:
        """Return the latents that the unmodified encoder gives.

        Args:
            frames: uint8 [F, H, W, 3].
            temporal_stride: the number of frames that share a latent.

        Returns:
            float32 [1, C, t, h, w].

        """
        encoder = self.card.family.encoder
        return encoder.original_latents(self.checkpoint.encoder, frames, temporal_stride)


def step_graph(step: StepPath) -> Graph:
    """Return the graph of a step; its caches have the precision that the step has now."""
    return Graph(FEATURES, step, step.examples, step.outputs)


def load_backbone(card: Card, weights: Weights) -> Backbone:
    """Load a card's models and its prompt.

    Raises:
        InputError: the checkpoint is missing or does not match the card, or the prompt is missing.

    """
    if weights.random:
        return Backbone(card, random_checkpoint(card), random_prompt(card), random=True)
    # Told before the weights are read, which takes minutes.
    check_text_encoder(card, weights)
    checkpoint = load_checkpoint(card, weights)
    prompt = empty_prompt(card, weights)
    return Backbone(card, checkpoint, prompt, random=False)


def read_denoising(feature: Feature) -> Denoising:
    """Return the denoising step of a card's feature."""
    levels = feature.signal_level, feature.noise_level
    return Denoising(feature.timestep, *levels, feature.noise_seed)
