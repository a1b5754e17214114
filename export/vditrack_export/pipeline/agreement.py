"""Comparison of a tiny encoder with the checkpoint's own, which it stands in for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from vditrack.acceptance import CLIPS, make_acceptance_clips, median_move
from vditrack.arrays import Floats
from vditrack.bundle.manifest import EncoderAgreement
from vditrack.errors import VditrackError
from vditrack.inference.session import Session
from vditrack_export.families.encoder_form import EncoderForm, Graph
from vditrack_export.pipeline.acceptance import ScoredTracks, track_clips
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.manifest import make_manifest
from vditrack_export.pipeline.parity import choose_parity_size, encode_window
from vditrack_export.pipeline.sessions import TorchSession

MAX_LATENT_DIFFERENCE = 0.5
"""The largest accepted difference of latents, relative to their standard deviation; half of what
latents without any relation differ by, or less."""


def measure_agreement(
    backbone: Backbone, report_stage: Callable[[str], None], *, accept: bool
) -> EncoderAgreement | None:
    """Compare a tiny encoder with the checkpoint's own, by latents and tracks of rendered clips.

    Args:
        backbone: the models in FP32.
        report_stage: called with the name of each stage as it starts.
        accept: whether latents that are not the checkpoint's are accepted.

    Returns:
        The measurements; None if the encoder is the checkpoint's own, or that is not at hand.

    Raises:
        VditrackError: the latents are not the checkpoint's, and this is not accepted, or all
            latents of an encoder are equal.

    """
    own = backbone.checkpoint.own_encoder
    if own is None:
        return None
    report_stage("comparing the tiny encoder with the checkpoint's own")
    size = choose_parity_size(backbone.card)
    form = backbone.encoder_form(size)
    own_form = backbone.card.own_encoder.form(own, size)
    windows = [
        torch.from_numpy(np.ascontiguousarray(clip.frames[: size.frames]))
        for clip in make_acceptance_clips(size, CLIPS)
    ]
    difference, correlation = _compare_latents(
        [encode_window(form, TorchSession, window) for window in windows],
        [encode_window(own_form, TorchSession, window) for window in windows],
    )
    differs = difference > MAX_LATENT_DIFFERENCE
    if differs and not accept:
        raise VditrackError(
            f"the latents of the tiny encoder are not those of the checkpoint's own: they differ "
            f"by {difference:.2f} of their standard deviation (at most {MAX_LATENT_DIFFERENCE}), "
            f"with a correlation of {correlation:.2f}. Nothing was written; give the weights for "
            "this checkpoint's model, or --accept."
        )
    features = backbone.feature_graph(size)
    before, after = (_track(backbone, each, features) for each in (own_form, form))
    return EncoderAgreement(
        clips=CLIPS,
        frames=before.found.shape[1],
        height=size.height,
        width=size.width,
        relative_error=difference,
        correlation=correlation,
        median_move=median_move(before.followed, after.followed, size),
        average_jaccard_own=before.average_jaccard(),
        average_jaccard=after.average_jaccard(),
        accepted=differs,
    )


def _compare_latents(tiny: Sequence[Floats], own: Sequence[Floats]) -> tuple[float, float]:
    """Return the relative difference and the correlation of two encoders' latents.

    Raises:
        VditrackError: all latents of an encoder are equal.

    """
    found, expected = (
        np.concatenate([latents.ravel() for latents in each]).astype(np.float64)
        for each in (tiny, own)
    )
    if not (found.std() > 0 and expected.std() > 0):
        raise VditrackError(
            "the tiny encoder or the checkpoint's own gives the same latents for all pictures. "
            "Nothing was written; take other files."
        )
    difference = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    return float(difference), float(np.corrcoef(found, expected)[0, 1])


def _track(backbone: Backbone, form: EncoderForm, features: Graph) -> ScoredTracks:
    """Track the acceptance clips with an encoder and the transformer, both run by torch."""
    graphs = {graph.file: graph for graph in (*form.graphs, features)}

    def open_graph(path: Path) -> Session:
        return TorchSession(graphs[path.name])

    size = choose_parity_size(backbone.card)
    manifest = make_manifest(backbone, size, form.takes, {})
    return track_clips(manifest, Path(), open_graph, CLIPS)
