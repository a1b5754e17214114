"""The block-causal Wan family: Self-Forcing, Causal-Forcing, CausVid.

Their checkpoints are weights of Wan2.1-T2V-1.3B, trained further; what differs is which tokens
attend to which. All latents of a window have the card's timestep.
"""

from typing import Any

from diffusers import WanTransformer3DModel
from torch import Tensor

from vditrack_export.families.banded_attention import Band, limit_attention
from vditrack_export.families.base_family import Encoder
from vditrack_export.families.base_shapes import EncoderShape
from vditrack_export.families.wan.family import WanDenoiser
from vditrack_export.families.wan_causal.shapes import WanCausalTransformer


class WanCausalDenoiser(WanDenoiser[WanCausalTransformer]):
    """A diffusers ``WanTransformer3DModel`` that attends block-causally."""

    def run_noised(
        self, model: WanTransformer3DModel, noised: Tensor, timestep: Tensor, prompt: Tensor
    ) -> object:
        """Run the unmodified model on a window, in which no chunk attends to later ones."""
        latents, chunk = noised.shape[2], self.shape.chunk
        band = Band(latents, chunk, latents + chunk)
        with limit_attention([block.attn1 for block in model.blocks], band):
            return super().run_noised(model, noised, timestep, prompt)


DENOISERS = {WanCausalTransformer: WanCausalDenoiser}
ENCODERS: dict[type[EncoderShape], type[Encoder[Any]]] = {}
