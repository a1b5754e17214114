"""Table of a card for the encoder of the bundled model. Its transformer is Wan's."""

from vditrack_export.families.base_shapes import DenoiserShape, EncoderShape, Sizes
from vditrack_export.families.sizes import Positive

FIRST_STRIDE = 4
"""Side of a cell at the first level of the encoder, in pixels."""


class Convolutions(EncoderShape, frozen=True, kw_only=True, tag="convolutions"):
    """Shapes of a `TinyEncoder`; see there."""

    widths: Sizes
    residuals: tuple[int, ...]
    context: tuple[Positive, ...]

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        return int(FIRST_STRIDE * 2 ** (len(self.widths) - 1))


DENOISERS: tuple[type[DenoiserShape], ...] = ()
ENCODERS = (Convolutions,)
