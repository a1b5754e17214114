"""What a family tells the rest of export: its denoiser (transformer or UNet) and its encoder.

Export, select and plan work with these classes only. A family of transformers subclasses
`TransformerDenoiser` and, if it has an encoder of its own, `Autoencoder`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from vditrack.bundle.manifest import Input
from vditrack.errors import InputError
from vditrack_export.checkpoints.checkpoint import CheckpointFiles
from vditrack_export.checkpoints.weights import Config, StoredModel
from vditrack_export.families.base_shapes import DenoiserShape, EncoderShape, Feature
from vditrack_export.families.encoder_form import EncoderForm
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.step_path import StepPath
from vditrack_export.families.text_encoders import TextEncoder
from vditrack_export.families.whole_model import Reading

Grid = tuple[int, int, int]
"""Frames, rows and columns of tokens."""

PromptPadding = Literal["kept", "zeroed", "masked"]

LoadTextEncoder = Callable[[str, str], tuple[Any, Any]]
"""Loads tokenizer and text encoder of a checkpoint: from a suffix of their folders' names and the
name of a class in transformers."""

DenoiserShapeT = TypeVar("DenoiserShapeT", bound=DenoiserShape)
EncoderShapeT = TypeVar("EncoderShapeT", bound=EncoderShape)


class Denoiser(ABC, Generic[DenoiserShapeT]):
    """The network that predicts noise, which descriptors are read of.

    Args:
        shape: Its shapes in the card.
        encoder: The encoder's shapes in the card.

    """

    model_class: ClassVar[type[nn.Module]]
    """Class in diffusers."""
    folder: ClassVar[str]
    """Folder in a checkpoint that a diffusers pipeline saved."""
    prompt_padding: ClassVar[PromptPadding] = "kept"
    """How the pipeline treats padding tokens of a prompt. ``kept``: as any other token. ``zeroed``:
    they are zero after the text encoder. ``masked``: the text encoder does not attend to them, and
    they are zero after it."""

    lora_loader: ClassVar[str | None] = None
    """Class of diffusers that converts low-rank adapters for it; None if there is none."""
    step_error: ClassVar[float] = 1e-5
    """Largest accepted difference between steps with cached keys and one pass over a clip, relative
    to the largest magnitude."""
    text_encoders: ClassVar[tuple[str, ...]] = ("",)
    """Suffixes of the folders of text encoders that give the prompt, and of their tokenizers."""

    def __init__(self, shape: DenoiserShapeT, encoder: EncoderShape) -> None:
        """Keep the shapes; no model is built."""
        self.shape = shape
        self.encoder_shape = encoder

    @abstractmethod
    def config(self) -> Config:
        """Return the entries of the diffusers configuration that the shapes determine."""

    @abstractmethod
    def load(self, stored: StoredModel, blocks: int, grid: Grid) -> nn.Module:
        """Load the unmodified model; of a transformer only the first ``blocks`` blocks.

        Args:
            stored: The stored model, with a configuration that agrees with the card.
            blocks: Number of blocks that are read.
            grid: Tokens of the window that it is exported for.

        Raises:
            InputError: The model is not the card's, or has a part that cannot be exported.

        """

    @abstractmethod
    def build_random(self, blocks: int) -> nn.Module:
        """Build the model with random weights; of a transformer the first ``blocks`` blocks."""

    @abstractmethod
    def channels(self, feature: Feature) -> tuple[int, ...]:
        """Return the channels of each head that a card's frequency range keeps.

        Raises:
            InputError: It keeps none.

        """

    @abstractmethod
    def path(
        self,
        model: Any,  # noqa: ANN401
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> nn.Module:
        """Return the module that maps latents to descriptors; this is what is exported.

        Args:
            model: The unmodified model; its submodules are shared.
            latent_shape: Channels, frames, rows and columns of the latents.
            cut: What is read.
            denoising: The denoising step.
            prompt: Embedding of the prompt, float32 of `prompt_shape`.

        """

    def step_path(
        self,
        model: Any,  # noqa: ANN401
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> StepPath:
        """Return the module that maps a chunk of latents and cached keys to descriptors.

        Arguments are those of `path`; the latents are those of a whole window, and the chunk are
        those described. Cards allow it by ``attentions`` of their shapes.

        Raises:
            InputError: The network has no such module.

        """
        raise InputError(f"{self.model_class.__name__} has no keys and values that are cached.")

    def read_clip(
        self,
        model: nn.Module,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
    ) -> Tensor:
        """Run the unmodified model once on a clip, and read what steps of `step_path` compute.

        Attention is limited to each chunk and the window before it. Other arguments are those of
        `step_path`.

        Args:
            model: The unmodified model.
            latent_shape: Shape of the latents of a window.
            cut: What is read, and of how many latents at a time.
            denoising: The denoising step.
            latents: Latents of the clip, a multiple of a chunk, float32 [1, C, T, h, w].
            prompt: Embedding of the prompt.

        Returns:
            Descriptors of all latents, float32 [tokens, D].

        Raises:
            InputError: As `step_path`.

        """
        raise InputError(f"{self.model_class.__name__} has no keys and values that are cached.")

    @abstractmethod
    def run(
        self,
        model: Any,  # noqa: ANN401
        latents: Tensor,
        denoising: Denoising,
        prompt: Tensor,
    ) -> object:
        """Run the unmodified model as its pipeline does, on clean latents [1, C, T, h, w]."""

    @abstractmethod
    def read_whole(
        self,
        model: nn.Module,
        cut: Cut,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
    ) -> Tensor:
        """Run the unmodified model and read by hooks what `path` computes.

        Returns:
            Descriptors, float32 [described tokens, D].

        """

    @abstractmethod
    def read_blocks(
        self,
        model: nn.Module,
        reading: Reading,
        denoising: Denoising,
        latents: Tensor,
        prompt: Tensor,
        found: Callable[[int, Tensor], None],
    ) -> None:
        """Run the unmodified model once and hand over what is read of each block as it is done.

        Args:
            model: The whole transformer, or all of it up to the last block read.
            reading: What is read.
            denoising: The denoising step.
            latents: Without noise, float32 [1, C, T, h, w].
            prompt: Embedding of the prompt.
            found: Called with the block and a tensor float32 [tokens, heads, head_dim] of the
                video's tokens, frame by frame and row by row. Nothing else keeps it.

        Raises:
            InputError: It is a UNet.

        """

    @abstractmethod
    def denoising_at(self, feature: Feature, noise: float) -> Denoising:
        """Return the denoising step at which the model takes latents with so much noise.

        The card's own level gives the card's own step.

        Args:
            feature: The card's own step.
            noise: Noise level, more than 0 and less than 1.

        Raises:
            InputError: The card's own step is not on a schedule that is known for the family.

        """

    @property
    def prompt_shape(self) -> tuple[int, int]:
        """Rows and columns of a prompt's embedding."""
        return self.shape.text_tokens, self.shape.text_dim

    def random_prompt(self, seed: int) -> Tensor:
        """Return random numbers in place of a prompt; zeros where the pipeline has padding."""
        embedding = torch.randn(self.prompt_shape, generator=torch.Generator().manual_seed(seed))
        if self.prompt_padding != "kept":
            embedding[self.prompt_shape[0] - self.shape.text_tokens + 1 :] = 0
        return embedding

    def embed_empty_prompt(self, text_encoder: TextEncoder, load: LoadTextEncoder) -> Tensor:
        """Run the checkpoint's text encoder on the empty prompt.

        Args:
            text_encoder: Its shapes in the card.
            load: Loads it.

        Returns:
            Embedding with its padding, float32 of `prompt_shape`.

        """
        tokenizer, encoder = load("", text_encoder.model_class)
        length = self.shape.text_tokens
        tokens = tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
        mask = tokens.attention_mask if self.prompt_padding == "masked" else None
        with torch.no_grad():
            embedding: Tensor = encoder(tokens.input_ids, mask).last_hidden_state[0].float()
        if self.prompt_padding == "kept":
            return embedding
        padded: Tensor = embedding * tokens.attention_mask[0][:, None]
        return padded


class Encoder(ABC, Generic[EncoderShapeT]):
    """The network that turns frames into latents.

    Args:
        shape: Its shapes in the card.

    """

    folder: ClassVar[str | None] = None
    """Folder in a checkpoint that a diffusers pipeline saved, if it has one."""
    denoiser_folder: ClassVar[str | None] = None
    """Folder of the denoiser in a checkpoint, if it is not the one that diffusers gives it."""

    def __init__(self, shape: EncoderShapeT) -> None:
        """Keep the shapes; no model is built."""
        self.shape = shape

    @abstractmethod
    def files(self, checkpoint: CheckpointFiles) -> tuple[Path, ...]:
        """Return the files of a checkpoint that it is loaded from.

        Raises:
            InputError: A file is missing or damaged, or it is not the card's model.

        """

    @abstractmethod
    def load(self, checkpoint: CheckpointFiles) -> nn.Module:
        """Load the unmodified model in FP32, ready for inference.

        Raises:
            InputError: It is not the card's model.

        """

    @abstractmethod
    def build_random(self) -> nn.Module:
        """Build the unmodified model with random weights."""

    @abstractmethod
    def form(self, model: Any, size: Input) -> EncoderForm:  # noqa: ANN401
        """Return the graphs that are exported for a window's size.

        Single frames if they are encoded independently; groups of frames with caches if
        convolutions look back in time; whole windows if norms do so too.
        """

    @abstractmethod
    def original_latents(self, model: Any, frames: Tensor, temporal_stride: int) -> Tensor:  # noqa: ANN401
        """Encode frames with the unmodified model, for comparison with the exported graphs.

        Args:
            model: The unmodified model.
            frames: uint8 [F, H, W, 3] RGB.
            temporal_stride: Frames per latent.

        Returns:
            Normalised latents, float32 [1, C, t, h, w].

        """

    def build_decoder(self, temporal_stride: int) -> Callable[[Tensor], Tensor] | None:
        """Build the decoder of the checkpoint's pipeline with random weights.

        Args:
            temporal_stride: Frames per latent. With 1, nothing repeats frames, as in HeFT.

        Returns:
            A function that decodes latents [1, C, T, h, w]; None if there is no decoder.

        """
        return None


@dataclass(frozen=True)
class Family:
    """What a card resolves to."""

    denoiser: Denoiser[Any]
    encoder: Encoder[Any]

    @property
    def denoiser_folder(self) -> str:
        """Folder of the denoiser in a checkpoint."""
        return self.encoder.denoiser_folder or self.denoiser.folder

    def open_denoiser(self, checkpoint: CheckpointFiles, component: str) -> StoredModel:
        """Open the denoiser of a checkpoint.

        Args:
            checkpoint: The checkpoint.
            component: Its folder: `denoiser_folder`, or that of an expert for low noise.

        Raises:
            InputError: A file is missing or damaged, or it is not the card's model.

        """
        return checkpoint.open(component, self.denoiser.model_class, self.denoiser.config())
