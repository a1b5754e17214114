"""The block-causal Wan family: Self-Forcing, Causal-Forcing, CausVid.

Their checkpoints are weights of Wan2.1-T2V-1.3B, fine-tuned; what differs is which tokens attend to
which. The step graph has the order of their own caches: chunk by chunk, all latents of a window at
one timestep.
"""

from typing import Any

from vditrack_export.families.base_family import Encoder
from vditrack_export.families.base_shapes import EncoderShape
from vditrack_export.families.wan.family import WanDenoiser
from vditrack_export.families.wan_causal.shapes import WanCausalTransformer


class WanCausalDenoiser(WanDenoiser[WanCausalTransformer]):
    """A diffusers ``WanTransformer3DModel`` that attends block-causally."""


DENOISERS = {WanCausalTransformer: WanCausalDenoiser}
ENCODERS: dict[type[EncoderShape], type[Encoder[Any]]] = {}
