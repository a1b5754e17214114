"""Bundles of small random models whose graph of descriptors keeps keys and values."""

from pathlib import Path

from doubles.small_cards import make_small_card
from vditrack.bundle.folder import Bundle
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.export import NONE, export_bundle
from vditrack_export.pipeline.verified_graphs import Rounding


def export_step_bundle(
    folder: Path,
    *,
    chunk: int = 1,
    window: int = 3,
    temporal_stride: int = 4,
    name: str = "wan2.1-causal-1.3b",
    rounding: Rounding = NONE,
) -> Bundle:
    """Export a small model with random weights.

    Args:
        folder: Folder of the bundle, which does not exist.
        chunk: Latents of a step.
        window: Latents of a window, a multiple of the chunk.
        temporal_stride: Frames per latent: 1 or 4.
        name: Card whose shapes it has; one that is not of a causal model is cached.
        rounding: Precision.

    """
    card = make_small_card(
        name,
        frames=1 + (window - 1) * temporal_stride,
        temporal_stride=temporal_stride,
        attention="causal" if "causal" in name else "cached",
        chunk=chunk,
    )
    return export_bundle(card, Weights(None), folder, lambda _: None, rounding)
