"""A denoiser that is a transformer of diffusers."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.loading import build_empty, fill_weights
from vditrack_export.checkpoints.weights import Config, StoredModel
from vditrack_export.families.banded_attention import Band, limit_attention
from vditrack_export.families.base_family import (
    Denoiser,
    Grid,
    PromptPadding,
)
from vditrack_export.families.base_shapes import Feature, Transformer
from vditrack_export.families.feature_path import TransformerPath
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.rotary import RotaryAxes, low_frequency_channels, wan_rotary_axes
from vditrack_export.families.step_path import StepPath
from vditrack_export.families.whole_model import Reading, catch_tensor

TransformerT = TypeVar("TransformerT", bound=Transformer)

_SAME_NOISE_LEVEL = 1e-4


class TransformerDenoiser(Denoiser[TransformerT]):
    """A transformer of diffusers, cut inside or after one of its blocks."""

    folder = "transformer"
    prompt_padding: ClassVar[PromptPadding] = "masked"
    path_class: ClassVar[type[nn.Module]]
    """Class of the feature path, with the arguments of `path`."""
    blocks: ClassVar[str]
    """Name of the list of blocks."""
    attention: ClassVar[str] = "attn1"
    """Name of a block's self-attention."""
    heads_first: ClassVar[bool] = True
    """Whether norms of keys and queries that take single heads get heads before tokens."""
    unreached: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Lists of blocks that are never read: the entry of the configuration that has the number of
    blocks, and the list's name."""
    text_last: ClassVar[bool] = False
    """Whether text tokens follow the video's where both attend together; otherwise they precede."""
    timesteps: ClassVar[int] = 1000
    """Timestep of pure noise, on the flow-matching schedule."""

    def config(self) -> Config:
        """Return the entries of the diffusers configuration that all families have."""
        shape = self.shape
        return {
            "num_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "attention_head_dim": shape.head_dim,
            "in_channels": shape.in_channels,
            "out_channels": shape.out_channels,
        }

    @property
    def rotary_axes(self) -> RotaryAxes:
        """Channels of a head that rotate with time, height and width; by default as in Wan."""
        return wan_rotary_axes(self.shape.head_dim)

    def channels(self, feature: Feature) -> tuple[int, ...]:
        """Return the channels of each head that a card's frequency range keeps."""
        return tuple(low_frequency_channels(self.rotary_axes, feature.frequency_range))

    def path(
        self,
        model: Any,  # noqa: ANN401
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> nn.Module:
        """Return the module that maps latents to descriptors."""
        return self.path_class(model, latent_shape, cut, denoising, prompt)

    def step_path(
        self,
        model: Any,  # noqa: ANN401
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> StepPath:
        """Return the module that maps a chunk of latents and cached keys to descriptors."""
        repeating = replace(denoising, chunk=cut.described)
        path = self.path(model, latent_shape, cut, repeating, prompt)
        if not isinstance(path, TransformerPath) or not path.is_cacheable:
            raise InputError(f"{self.model_class.__name__} has no keys and values that are cached.")
        return StepPath(path, latent_shape[1] - cut.described)

    def refusal(self, config: Config, grid: Grid) -> str | None:
        """Return what in a checkpoint's configuration cannot be exported, if anything."""
        return None

    def truncated(self, blocks: int) -> Config:
        """Return the entries of the configuration that leave out all blocks but the first."""
        return {"num_layers": blocks} | {count: 0 for count, _ in self.unreached}

    def load(self, stored: StoredModel, blocks: int, grid: Grid) -> nn.Module:
        """Load the unmodified model up to the last block that is read."""
        # Built first, because only a valid configuration can be asked what it lacks.
        config = stored.config | self.truncated(blocks)
        model = build_empty(stored, self.model_class, config)
        refusal = self.refusal(stored.config, grid)
        if refusal:
            raise InputError(f"checkpoint {stored.path} does not fit the card: {refusal}.")
        block = re.compile(rf"{self.blocks}\.(\d+)\.")
        unreached = tuple(f"{name}." for _, name in self.unreached)

        def skip(weight: str) -> bool:
            match = block.match(weight)
            return weight.startswith(unreached) or bool(match and int(match[1]) >= blocks)

        return fill_weights(stored, model, skip)

    def build_random(self, blocks: int) -> nn.Module:
        """Build the model with random weights, up to the last block that is read."""
        return self.model_class(**self.config() | self.truncated(blocks))

    @abstractmethod
    def run_noised(
        self,
        model: Any,  # noqa: ANN401
        noised: Tensor,
        timestep: Tensor,
        prompt: Tensor,
    ) -> object:
        """Run the unmodified model as its pipeline does.

        Args:
            model: The unmodified model.
            noised: Latents with noise, float32 [1, C, T, h, w].
            timestep: float32 [1].
            prompt: Embedding of the prompt.

        """

    def run(
        self,
        model: Any,  # noqa: ANN401
        latents: Tensor,
        denoising: Denoising,
        prompt: Tensor,
    ) -> object:
        """Run the unmodified model as its pipeline does, on clean latents [1, C, T, h, w]."""
        timestep = torch.tensor([denoising.timestep])
        return self.run_noised(model, denoising.noised(latents), timestep, prompt)

    def read_whole(
        self,
        model: nn.Module,
        cut: Cut,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
    ) -> Tensor:
        """Run the unmodified model and read by hooks what `path` computes."""
        caught: list[Tensor] = []
        reading = Reading((cut.block,), cut.tensor, cut.rotated)
        self.read_blocks(
            model, reading, denoising, latents, prompt, lambda _, every: caught.append(every)
        )
        by_head = caught[-1]
        newest = len(by_head) * cut.described // latents.shape[2]
        return by_head[-newest:][:, list(cut.heads)][:, :, list(cut.channels)].flatten(1)

    def read_clip(
        self,
        model: nn.Module,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
    ) -> Tensor:
        """Run the unmodified model once on a clip, and read what steps of `step_path` compute."""
        caught: list[Tensor] = []
        # Rotated later, by places in a window instead of in the clip.
        reading = Reading((cut.block,), cut.tensor, rotated=False)
        repeating = replace(denoising, chunk=cut.described)
        attentions = [getattr(block, self.attention) for block in getattr(model, self.blocks)]
        band = Band(latents.shape[2], cut.described, latent_shape[1])
        with limit_attention(attentions, band):
            self.read_blocks(
                model, reading, repeating, latents, prompt, lambda _, every: caught.append(every)
            )
        by_head = caught[-1]
        if cut.rotated and cut.tensor != "hidden":
            path = self.path(model, latent_shape, cut, repeating, prompt)
            assert isinstance(path, TransformerPath)
            chunks = torch.unflatten(by_head, 0, (-1, path.newest))
            by_head = path.rotate_newest(chunks).flatten(0, 1)
        return by_head[:, list(cut.heads)][:, :, list(cut.channels)].flatten(1)

    def read_blocks(
        self,
        model: nn.Module,
        reading: Reading,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
        found: Callable[[int, Tensor], None],
    ) -> None:
        """Run the unmodified model once and hand over what is read of each block as it is done."""
        tokens = math.prod(latents.shape[2:]) // math.prod(self.shape.patch)
        with torch.no_grad(), ExitStack() as hooks:
            for index in reading.blocks:
                block = getattr(model, self.blocks)[index]
                attention = getattr(block, self.attention)
                caught = catch_tensor(
                    block, attention, reading, hooks, heads_first=self.heads_first
                )

                def hand_over(
                    *_: object, index: int = index, caught: list[Tensor] = caught
                ) -> None:
                    every = caught.pop()
                    # Text tokens may go along, before the video's or after them.
                    found(index, every[:tokens] if self.text_last else every[-tokens:])

                hooks.callback(block.register_forward_hook(hand_over).remove)
            self.run(model, latents, denoising, prompt)

    def denoising_at(self, feature: Feature, noise: float) -> Denoising:
        """Return the denoising step at which the model takes latents with so much noise."""
        if abs(noise - feature.noise_level) < _SAME_NOISE_LEVEL:
            timestep, signal, level = feature.timestep, feature.signal_level, feature.noise_level
        else:
            timestep, signal, level = self.step_of_noise(feature, noise)
        return Denoising(timestep, signal, level, feature.noise_seed)

    def step_of_noise(self, feature: Feature, noise: float) -> tuple[float, float, float]:
        """Return timestep, signal level and noise level on the family's schedule.

        This one is flow matching: signal and noise sum to 1, and the timestep is linear in them.
        """
        return round(self.timesteps * noise, 9), round(1 - noise, 12), noise
