"""Table of a card for SkyReels-V2: its transformer. The autoencoder is Wan's."""

from vditrack.bundle.value_types import PositiveReal
from vditrack_export.families.base_shapes import EncoderShape
from vditrack_export.families.wan.shapes import WanTransformer


class SkyReelsTransformer(WanTransformer, frozen=True, kw_only=True, tag="skyreels_v2"):
    """Shapes of a diffusers ``SkyReelsV2Transformer3DModel``."""

    fps: PositiveReal | None = None
    """Frame rate that the model is given, in frames per second; None if it takes none."""


DENOISERS = (SkyReelsTransformer,)
ENCODERS: tuple[type[EncoderShape], ...] = ()
