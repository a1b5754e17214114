"""Table of a card for Cosmos: its transformer. The autoencoder is Wan's."""

from typing import ClassVar

from vditrack.bundle.value_types import PositiveReal
from vditrack_export.families.base_shapes import EncoderShape, Transformer
from vditrack_export.families.sizes import Positive


class CosmosTransformer(Transformer, frozen=True, kw_only=True, tag="cosmos"):
    """Shapes of a diffusers ``CosmosTransformer3DModel``."""

    attentions: ClassVar[tuple[str, ...]] = ("window", "cached")

    modulation_dim: Positive
    """Rank of the modulation by the timestep."""
    rope_scale: tuple[PositiveReal, PositiveReal, PositiveReal]
    """Factors of the rotary wavelengths in time, height and width."""


DENOISERS = (CosmosTransformer,)
ENCODERS: tuple[type[EncoderShape], ...] = ()
