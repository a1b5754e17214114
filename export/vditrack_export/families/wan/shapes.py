"""Tables of a card for Wan: transformer and autoencoder."""

from typing import ClassVar

from vditrack_export.families.base_shapes import (
    EncoderShape,
    Sizes,
    TinyEncoder,
    Transformer,
)
from vditrack_export.families.sizes import Positive


class WanTransformer(Transformer, frozen=True, kw_only=True, tag="wan"):
    """Shapes of a diffusers ``WanTransformer3DModel``."""

    attentions: ClassVar[tuple[str, ...]] = ("window", "cached")

    frequency_dim: Positive
    """Channels of the sinusoidal embedding of the timestep."""


class WanAutoencoder(EncoderShape, frozen=True, kw_only=True, tag="wan_autoencoder"):
    """Shapes of a diffusers ``AutoencoderKLWan``, whose decoder mirrors its encoder."""

    image_channels: Positive
    """Channels of a picture, before patches become channels."""
    patch: Positive = 1
    """Side, in pixels, of the squares that become channels before the first level."""
    base_width: Positive
    decoder_base_width: Positive | None = None
    """The decoder's base width, if it is not the encoder's."""
    multiples: Sizes
    """Width of each level over the base width; the picture is halved between two levels."""
    residual_blocks: Positive
    """Per level of the encoder; the decoder has one more."""
    temporal_downsample: tuple[bool, ...]
    """For each step from level to level, whether time is halved too."""
    residual: bool = False
    """Whether an averaging shortcut goes around each level, as in Wan2.2-TI2V-5B."""

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.multiples) - 1:
            raise ValueError("temporal_downsample needs one entry fewer than multiples")

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        return int(self.patch * 2 ** len(self.temporal_downsample))

    @property
    def temporal_stride(self) -> int:
        """Frames per latent of the unmodified encoder."""
        return int(2 ** sum(self.temporal_downsample))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames per latent that can be exported; averaging shortcuts cannot be left out."""
        return (self.temporal_stride,) if self.residual else (1, self.temporal_stride)

    @property
    def tiny_encoder(self) -> TinyEncoder:
        """TAEHV for Wan 2.1, or for the 5B model of Wan 2.2."""
        return TinyEncoder("taehv", "taew2_2" if self.residual else "taew2_1")


DENOISERS = (WanTransformer,)
ENCODERS = (WanAutoencoder,)
