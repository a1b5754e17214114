"""HeFT's settings for Wan2.1-T2V-1.3B, without patch refinement."""

from vditrack import Matching

HEFT_MATCHING = Matching(
    temperature=1.0,
    argmax_radius=17,
    search_radius=42,
    visibility_threshold=18,
    similarity_threshold=-1,
    recovery_threshold=-1,
    template_update=0.05,
    update_after_loss=True,
    horizon=24,
)
