"""Tables of a card for UNets, and for the encoders that they come with."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from vditrack.bundle.manifest import Input
from vditrack.bundle.value_types import PositiveReal
from vditrack_export.families.base_shapes import (
    DenoiserShape,
    EncoderShape,
    Feature,
    LevelEncoderShape,
    Sizes,
    TinyEncoder,
)
from vditrack_export.families.sizes import Positive


class UNet(DenoiserShape, frozen=True, kw_only=True):
    """Shapes that all UNets have.

    The hidden states of a decoder layer are read whole, as a single head without rotary
    frequencies. A layer is a residual block with its attention; the last layer of each level but
    the last includes the upsampling. The third of four levels of three layers so ends with layer 8,
    counted from 0.
    """

    widths: Sizes
    """Channels of each level of the encoder; the picture is halved between two levels."""
    residual_blocks: Positive
    """Per level of the encoder; the decoder has one more."""

    @property
    def patch(self) -> tuple[int, int, int]:
        """One latent is one cell: a UNet makes no patches."""
        return (1, 1, 1)

    @property
    def layers(self) -> int:
        """Number of layers of the decoder."""
        return len(self.widths) * (self.residual_blocks + 1)

    def width(self, layer: int) -> int:
        """Return the channels that a layer of the decoder puts out."""
        return int(self.widths[-1 - layer // (self.residual_blocks + 1)])

    def cell(self, block: int) -> int:
        """Return the side, in latents, of one position of a decoder layer's hidden states."""
        doubled = min((block + 1) // (self.residual_blocks + 1), len(self.widths) - 1)
        return int(2 ** (len(self.widths) - 1 - doubled))

    def complaints(self, feature: Feature, size: Input, stride: int) -> Iterator[str]:
        """Yield what in a card does not fit these shapes."""
        if feature.block >= self.layers:
            yield f"block is not one of the {self.layers} layers of the decoder"
        whole = feature.heads == (0,) and feature.frequency_range == (0.0, 1.0)
        if feature.tensor != "hidden" or not whole:
            yield (
                'of a UNet hidden states are read, whole: give tensor = "hidden", heads = [0] and '
                "frequency_range = [0.0, 1.0]"
            )


def _check_levels(shape: UNet, name: str, count: int) -> None:
    if count != len(shape.widths):
        raise ValueError(f"{name} needs as many entries as widths")


class StableDiffusionUNet(UNet, frozen=True, kw_only=True, tag="stable_diffusion"):
    """Shapes of the ``UNet2DConditionModel`` of Stable Diffusion 2.

    All levels but the deepest have attention.
    """

    attention_heads: Sizes
    """Heads of each level."""
    text_dim: Positive
    text_tokens: Positive

    def __post_init__(self) -> None:
        _check_levels(self, "attention_heads", len(self.attention_heads))


class I2VGenUNet(UNet, frozen=True, kw_only=True, tag="i2vgen_xl"):
    """Shapes of a diffusers ``I2VGenXLUNet``, and its conditions beside the prompt."""

    head_dim: Positive
    text_dim: Positive
    text_tokens: Positive
    fps: PositiveReal
    """Frame rate, in frames per second."""


class StableVideoUNet(UNet, frozen=True, kw_only=True, tag="stable_video_diffusion"):
    """Shapes of a diffusers ``UNetSpatioTemporalConditionModel``, and its conditions."""

    signed_timestep: ClassVar[bool] = True

    attention_heads: Sizes
    """Heads of each level."""
    image_dim: Positive
    """Channels of the image token, which takes the place of a prompt."""
    condition_dim: Positive
    """Channels of the sinusoidal embedding of each of the three conditions below."""
    fps: PositiveReal
    """Frame rate, in frames per second."""
    motion_bucket: PositiveReal
    noise_augmentation: Annotated[float, Meta(ge=0)]
    """Declared noise deviation of the conditioning frame; no noise is added to it."""

    def __post_init__(self) -> None:
        _check_levels(self, "attention_heads", len(self.attention_heads))

    @property
    def text_dim(self) -> int:
        """Channels of the image token."""
        return int(self.image_dim)

    @property
    def text_tokens(self) -> int:
        """Number of image tokens."""
        return 1


class AdmUNet(UNet, frozen=True, kw_only=True, tag="adm"):
    """Shapes of a diffusers ``UNet2DModel`` built like ADM; it works on pixels."""

    head_dim: Positive
    attention: Annotated[tuple[bool, ...], Meta(min_length=1)]
    """For each level, whether it has attention."""

    def __post_init__(self) -> None:
        _check_levels(self, "attention", len(self.attention))

    @property
    def text_dim(self) -> int:
        """It takes no prompt."""
        return 0

    @property
    def text_tokens(self) -> int:
        """It takes no prompt."""
        return 0

    def complaints(self, feature: Feature, size: Input, stride: int) -> Iterator[str]:
        """Yield what in a card does not fit these shapes."""
        yield from super().complaints(feature, size, stride)
        side = stride * 2 ** (len(self.widths) - 1)
        if size.height % side or size.width % side:
            yield (
                f"{size.width} x {size.height} pixels do not divide into squares of {side}, which "
                "the deepest level needs"
            )


class KlAutoencoder(LevelEncoderShape, frozen=True, kw_only=True, tag="kl_autoencoder"):
    """Shapes of a diffusers ``AutoencoderKL`` or ``AutoencoderKLTemporalDecoder``.

    Both encode each frame alone, in the same way.
    """

    scaling_factor: PositiveReal
    """Factor of the latents that the UNet is given."""
    temporal_decoder: bool = False
    """Whether it is an ``AutoencoderKLTemporalDecoder``."""

    @property
    def tiny_encoder(self) -> TinyEncoder:
        """TAESD: all cards have the latents of Stable Diffusion 1 and 2."""
        return TinyEncoder("taesd", "taesd")


class Pixels(EncoderShape, frozen=True, kw_only=True, tag="pixels"):
    """No encoder: red, green and blue in [-1, 1] are the latents."""

    latent_channels: Literal[3]

    @property
    def stride(self) -> int:
        """A latent is a pixel."""
        return 1


DENOISERS = (StableDiffusionUNet, I2VGenUNet, StableVideoUNet, AdmUNet)
ENCODERS = (KlAutoencoder, Pixels)
