"""Tables of a card for CogVideoX: transformer and autoencoder."""

from typing import Literal

from vditrack_export.families.base_shapes import LevelEncoderShape, TinyEncoder, Transformer
from vditrack_export.families.sizes import Positive


class CogVideoXTransformer(Transformer, frozen=True, kw_only=True, tag="cogvideox"):
    """Shapes of a diffusers ``CogVideoXTransformer3DModel``."""

    time_dim: Positive
    """Channels of the timestep's embedding."""
    rotary: bool
    """Whether positions are rotary embeddings; otherwise sinusoids are added once."""


class CogVideoXAutoencoder(
    LevelEncoderShape, frozen=True, kw_only=True, tag="cogvideox_autoencoder"
):
    """Shapes of a diffusers ``AutoencoderKLCogVideoX``."""

    temporal_stride: Literal[4]
    """Frames per latent of the unmodified encoder."""

    @property
    def tiny_encoder(self) -> TinyEncoder:
        """TAEHV for CogVideoX."""
        return TinyEncoder("taehv", "taecvx")


DENOISERS = (CogVideoXTransformer,)
ENCODERS = (CogVideoXAutoencoder,)
