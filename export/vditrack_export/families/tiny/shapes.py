"""Table of a card for the encoder of the bundled model. Its transformer is Wan's."""

from vditrack_export.families.base_shapes import DenoiserShape, EncoderShape, Sizes


class Convolutions(EncoderShape, frozen=True, kw_only=True, tag="convolutions"):
    """Shapes of a `TinyEncoder`, which halves the picture once per width."""

    widths: Sizes
    """Channels after each halving."""

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        return int(2 ** len(self.widths))


DENOISERS: tuple[type[DenoiserShape], ...] = ()
ENCODERS = (Convolutions,)
