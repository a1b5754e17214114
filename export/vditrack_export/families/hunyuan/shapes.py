"""Tables of a card for HunyuanVideo: transformer and autoencoder."""

from collections.abc import Iterator
from typing import Literal

from vditrack.bundle.manifest import Input
from vditrack_export.families.base_shapes import (
    Feature,
    LevelEncoderShape,
    TinyEncoder,
    Transformer,
)
from vditrack_export.families.sizes import Positive


class HunyuanVideoTransformer(Transformer, frozen=True, kw_only=True, tag="hunyuan_video"):
    """Shapes of a diffusers ``HunyuanVideoTransformer3DModel``; ``layers`` have two streams."""

    single_layers: Positive
    """Blocks of one stream that follow; they cannot be read."""
    refiner_layers: Positive
    """Blocks that refine the prompt's tokens first."""
    pooled_dim: Positive
    """Channels of the pooled prompt of the second text encoder."""

    def __post_init__(self) -> None:
        if self.pooled_dim > self.text_dim:
            raise ValueError("pooled_dim is more than text_dim")

    def complaints(self, feature: Feature, size: Input, stride: int) -> Iterator[str]:
        """Yield what in a card does not fit these shapes."""
        if 0 <= feature.block - self.layers < self.single_layers:
            yield (
                f"block {feature.block} has a single stream, which cannot be cut: give one of "
                f"the {self.layers} before"
            )
        yield from super().complaints(feature, size, stride)


class HunyuanVideoAutoencoder(
    LevelEncoderShape, frozen=True, kw_only=True, tag="hunyuan_video_autoencoder"
):
    """Shapes of a diffusers ``AutoencoderKLHunyuanVideo``."""

    widths: tuple[Positive, Positive, Positive, Positive]
    """Channels of each level."""
    temporal_stride: Literal[4]
    """Frames per latent of the unmodified encoder."""

    @property
    def tiny_encoder(self) -> TinyEncoder:
        """TAEHV for HunyuanVideo."""
        return TinyEncoder("taehv", "taehv")


DENOISERS = (HunyuanVideoTransformer,)
ENCODERS = (HunyuanVideoAutoencoder,)
