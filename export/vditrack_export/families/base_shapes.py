"""Tables of a card that describe its networks: what the shapes of all families share."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Meta

from vditrack.bundle.manifest import Input
from vditrack_export.families.sizes import Positive

Index = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Sizes = Annotated[tuple[Positive, ...], Meta(min_length=1)]


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which internal tensor of the transformer or UNet is the descriptor."""

    block: Index
    """Transformer block, or layer of a UNet's decoder, counted from 0."""
    heads: Annotated[tuple[Index, ...], Meta(min_length=1)]
    selected: bool = True
    """Whether block and heads were selected for tracking; otherwise they are placeholders."""
    tensor: Literal["keys", "queries", "hidden"]
    rotated: bool = True
    """Whether keys and queries are read after the rotary embedding."""
    frequency_range: tuple[Fraction, Fraction]
    """Part of each rotary axis that is kept, as fractions from its highest frequency."""
    frequency_layout: Literal["rotary", "reference"] = "rotary"
    """Order channels by true frequency, or slice them as HeFT's reference does (Cosmos only)."""
    timestep: float
    """Timestep input of the model. Stable Video Diffusion takes the logarithm of the noise."""
    signal_level: Fraction
    noise_level: Fraction
    """The model's input is signal_level * latents + noise_level * noise."""
    noise_seed: Index

    def __post_init__(self) -> None:
        if len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads {list(self.heads)} name one head twice")
        if self.frequency_range[0] >= self.frequency_range[1]:
            raise ValueError(f"frequency_range {list(self.frequency_range)} is empty")


class DenoiserShape(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="family"
):
    """Shapes of the network that predicts noise: a transformer or a UNet."""

    signed_timestep: ClassVar[bool] = False
    """Whether timesteps below 0 are valid."""
    attentions: ClassVar[tuple[str, ...]] = ("window",)
    """Values of a card's ``attention`` that the network can be exported with."""

    in_channels: Positive
    """Channels of the latents."""
    out_channels: Positive

    @property
    def layers(self) -> int:
        """Number of transformer blocks, or of layers of a UNet's decoder."""
        raise NotImplementedError

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, rows and columns of latents in one token."""
        raise NotImplementedError

    @property
    def text_dim(self) -> int:
        """Channels of a prompt token; 0 without a prompt."""
        raise NotImplementedError

    @property
    def text_tokens(self) -> int:
        """Length to which prompts are padded; 0 without a prompt."""
        raise NotImplementedError

    def cell(self, block: int) -> int:
        """Return the side, in latents, of one cell of what ``block`` puts out."""
        raise NotImplementedError

    def complaints(self, feature: Feature, size: Input, stride: int) -> Iterator[str]:
        """Yield what in a card does not fit these shapes.

        Args:
            feature: What is read.
            size: Size of the input window.
            stride: Side of a latent in pixels.

        """
        raise NotImplementedError

    @property
    def chunk_size(self) -> int | None:
        """Latents that the transformer was trained to take at a time; None for any number."""
        return None

    @property
    def as_transformer(self) -> "Transformer | None":
        """These shapes if they are a transformer's, with heads and blocks to select; else None."""
        return None


class Transformer(DenoiserShape, frozen=True, kw_only=True):
    """Shapes that the transformers of all families have."""

    layers: Positive
    heads: Positive
    head_dim: Positive
    feed_forward: Positive
    patch: tuple[Positive, Positive, Positive]
    """Frames, rows and columns of latents in one token."""
    text_dim: Positive
    """Channels of a token of the text encoder."""
    text_tokens: Positive
    """Length to which prompts are padded."""

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.heads * self.head_dim

    def cell(self, block: int) -> int:
        """Return the side, in latents, of one token; it is the same for all blocks."""
        return int(self.patch[1])

    def complaints(self, feature: Feature, size: Input, stride: int) -> Iterator[str]:
        """Yield what in a card does not fit these shapes."""
        if feature.block >= self.layers:
            yield "block is not one of the transformer's"
        if max(feature.heads) >= self.heads:
            yield "heads are not the transformer's"

    @property
    def as_transformer(self) -> "Transformer | None":
        """These shapes."""
        return self


TinyEncoderKind = Literal["taehv", "taesd"]


class TinyEncoder(NamedTuple):
    """A small distilled encoder that gives the latents of a larger one."""

    kind: TinyEncoderKind
    published: str | None
    """Name of the published weights for these latents; None if there are none."""


class EncoderShape(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """Shapes of the encoder that turns frames into latents."""

    latent_channels: Positive

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        raise NotImplementedError

    @property
    def temporal_stride(self) -> int:
        """Frames per latent of the unmodified encoder."""
        return 1

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames per latent that can be exported."""
        return tuple(sorted({1, self.temporal_stride}))

    @property
    def tiny_encoder(self) -> TinyEncoder | None:
        """The kind of tiny encoder that gives the same latents; None if there is none."""
        return None


class LevelEncoderShape(EncoderShape, frozen=True, kw_only=True):
    """Shapes of an encoder that halves the picture between two levels."""

    image_channels: Positive
    widths: Sizes
    """Channels of each level."""
    residual_blocks: Positive
    """Per level of the encoder; the decoder has one more."""

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        return int(2 ** (len(self.widths) - 1))
