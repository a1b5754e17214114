"""Tables of a card for LTX-Video: transformer and autoencoder."""

from typing import ClassVar, Literal

from vditrack_export.families.base_shapes import (
    EncoderShape,
    Sizes,
    TinyEncoder,
    Transformer,
)
from vditrack_export.families.sizes import Positive


class LtxTransformer(Transformer, frozen=True, kw_only=True, tag="ltx"):
    """Shapes of a diffusers ``LTXVideoTransformer3DModel``."""

    attentions: ClassVar[tuple[str, ...]] = ("window", "cached")

    patch: tuple[Literal[1], Literal[1], Literal[1]]
    """One latent is one token: the autoencoder makes the patches."""


class LtxAutoencoder(EncoderShape, frozen=True, kw_only=True, tag="ltx_autoencoder"):
    """Shapes of the encoder of a diffusers ``AutoencoderKLLTXVideo``, LTX-Video 0.9.0 and 0.9.1.

    The decoder's shapes differ; no bundle needs them.
    """

    image_channels: Positive
    patch: Positive
    """Side, in pixels, of the squares that become channels before the first level."""
    widths: Sizes
    """Channels of each level."""
    downsample: tuple[bool, ...]
    """For each level, whether it ends by halving rows, columns and frames together."""
    residual_blocks: Sizes
    """Blocks of each level, then those in the middle."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if (len(self.downsample), len(self.residual_blocks)) != (levels, levels + 1):
            raise ValueError(
                "downsample needs as many entries as widths, and residual_blocks one more"
            )
        # The transformer's rotary positions assume these.
        if (self.stride, self.temporal_stride) != (32, 8):
            raise ValueError("patch and downsample do not make latents of 32 pixels and 8 frames")

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        return int(self.patch * 2 ** sum(self.downsample))

    @property
    def temporal_stride(self) -> int:
        """Frames per latent of the unmodified encoder."""
        return int(2 ** sum(self.downsample))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Frames per latent that can be exported; one convolution halves space and time."""
        return (self.temporal_stride,)

    @property
    def tiny_encoder(self) -> TinyEncoder:
        """TAEHV; its published weights of these shapes are for LTX-2, which has other latents."""
        return TinyEncoder("taehv", None)


DENOISERS = (LtxTransformer,)
ENCODERS = (LtxAutoencoder,)
