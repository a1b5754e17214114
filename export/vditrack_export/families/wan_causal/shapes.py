"""Table of a card for block-causal Wan: its transformer. The autoencoder is Wan's."""

from collections.abc import Iterator
from typing import ClassVar

from vditrack.bundle.manifest import Input
from vditrack_export.families.base_shapes import EncoderShape, Feature
from vditrack_export.families.sizes import Positive
from vditrack_export.families.wan.shapes import WanTransformer


class WanCausalTransformer(WanTransformer, frozen=True, kw_only=True, tag="wan_causal"):
    """Shapes of a diffusers ``WanTransformer3DModel`` that was trained block-causally."""

    attentions: ClassVar[tuple[str, ...]] = ("causal",)

    chunk: Positive
    """Latents that attend to each other, and are denoised together."""

    @property
    def chunk_size(self) -> int:
        """Latents that the transformer was trained to take at a time."""
        return int(self.chunk)

    def complaints(self, feature: Feature, size: Input, stride: int) -> Iterator[str]:
        """Yield what in a card does not fit these shapes."""
        yield from super().complaints(feature, size, stride)
        if size.described_latents != self.chunk:
            count = "1 latent" if self.chunk == 1 else f"{self.chunk} latents"
            yield (
                f"the transformer takes {count} at a time: described_frames are "
                f"{size.described_frames} and must be {self.chunk * size.temporal_stride}"
            )


DENOISERS = (WanCausalTransformer,)
ENCODERS: tuple[type[EncoderShape], ...] = ()
