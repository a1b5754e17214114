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

    def complaints(self, feature: Feature, size: Input, stride: int) -> Iterator[str]:
        """Yield what in a card does not fit these shapes."""
        yield from super().complaints(feature, size, stride)
        if size.described_latents != self.chunk:
            yield (
                f"the transformer takes {self.chunk} latents at a time: described_frames are not "
                f"{self.chunk * size.temporal_stride}"
            )


DENOISERS = (WanCausalTransformer,)
ENCODERS: tuple[type[EncoderShape], ...] = ()
