"""The effect of an export on tracks of rendered clips whose motion is known.

A precision below FP32, and cached keys and values of a bidirectional model, are judged by it. A
bundle carries the tracks of its own graphs, which its engines are compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vditrack.acceptance import (
    CLIPS,
    MAX_MOVE,
    AcceptanceTracks,
    make_acceptance_clips,
    median_move,
    save_acceptance_tracks,
    track_acceptance_clips,
)
from vditrack.arrays import Bools, Floats
from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.bundle.manifest import AttentionCheck, Input, Manifest, PrecisionCheck
from vditrack.errors import VditrackError
from vditrack.evaluation.metrics.points import Comparison
from vditrack.evaluation.protocols import RASTER
from vditrack.inference.session import OpenGraph
from vditrack_export.families.layers import Attend

MAX_LOSS = 1.0
"""The largest accepted loss of average Jaccard, in percent."""


@dataclass(frozen=True)
class ScoredTracks:
    """Tracks of all points of the acceptance clips, and the truth."""

    size: Input
    """The size of the clips."""
    found: Floats
    """Tracked positions, [N, T, 2] (x, y) in pixels of the clips."""
    visible: Bools
    """Reported visibility, [N, T]."""
    truth: Floats
    """True positions, [N, T, 2] (x, y) in pixels of the clips."""
    truly_visible: Bools
    """True visibility, [N, T]."""

    @property
    def followed(self) -> AcceptanceTracks:
        """The tracks without the truth."""
        return AcceptanceTracks(self.found, self.visible)

    def average_jaccard(self) -> float:
        """Return TAP-Vid's average Jaccard over the frames after the first, in percent."""
        raster = RASTER / np.array([self.size.width, self.size.height])
        squared = (((self.found - self.truth) * raster) ** 2).sum(axis=2)
        counted = np.ones_like(self.visible)
        counted[:, 0] = False
        compared = Comparison(squared.astype(np.float32), self.truly_visible, self.visible, counted)
        return compared.scores().average_jaccard


def track_clips(
    manifest: Manifest, folder: Path, open_graph: OpenGraph, count: int
) -> ScoredTracks:
    """Track the acceptance clips with a bundle's graphs, by descriptor matching alone.

    Args:
        manifest: the manifest of a bundle of these graphs.
        folder: the folder of the graphs.
        open_graph: loads each of the graphs.
        count: the number of clips.

    Raises:
        VditrackError: a graph gives a number that is not finite.

    """
    clips = make_acceptance_clips(manifest.input, count)
    followed = track_acceptance_clips(Bundle(folder, manifest), open_graph, clips)
    return ScoredTracks(
        size=manifest.input,
        found=followed.points,
        visible=followed.visible,
        truth=np.concatenate([clip.points for clip in clips]),
        truly_visible=np.concatenate([clip.visible for clip in clips]),
    )


def compare_tracks(before: ScoredTracks, after: ScoredTracks, *, accept: bool) -> PrecisionCheck:
    """Compare tracks in FP32 with those of the same clips in another precision.

    Args:
        before: the tracks in FP32.
        after: the tracks in the other precision.
        accept: whether a precision beyond the limits is accepted.

    Raises:
        VditrackError: points moved too far or the average Jaccard fell too much, and this is not
            accepted.

    """
    move, fails = _judge(before, after, "this precision", "give another precision", accept=accept)
    return PrecisionCheck(
        clips=CLIPS,
        frames=before.found.shape[1],
        height=before.size.height,
        width=before.size.width,
        median_move=move,
        average_jaccard_fp32=before.average_jaccard(),
        average_jaccard=after.average_jaccard(),
        accepted=fails,
    )


def compare_attention(
    window: ScoredTracks, cached: ScoredTracks, *, accept: bool
) -> AttentionCheck:
    """Compare tracks with whole windows with those of the same clips with cached keys and values.

    Args:
        window: the tracks with whole windows.
        cached: the tracks with cached keys and values.
        accept: whether tracks beyond the limits are accepted.

    Raises:
        VditrackError: as `compare_tracks`.

    """
    cause, remedy = 'attention "cached"', "give --attention window"
    move, fails = _judge(window, cached, cause, remedy, accept=accept)
    return AttentionCheck(
        clips=CLIPS,
        frames=window.found.shape[1],
        height=window.size.height,
        width=window.size.width,
        median_move=move,
        window_frames=window.size.frames,
        average_jaccard_window=window.average_jaccard(),
        average_jaccard=cached.average_jaccard(),
        accepted=fails,
    )


def _judge(
    before: ScoredTracks, after: ScoredTracks, cause: str, remedy: str, *, accept: bool
) -> tuple[float, bool]:
    """Return how far the median point moved, in pixels, and whether a limit was exceeded.

    Raises:
        VditrackError: a limit was exceeded and this is not accepted.

    """
    move = median_move(before.followed, after.followed, before.size)
    first, second = before.average_jaccard(), after.average_jaccard()
    # Written so that NaN fails.
    fails = not (move <= MAX_MOVE and first - second <= MAX_LOSS)
    if fails and not accept:
        raise VditrackError(
            f"{cause} moves the median point by {move:.2f} pixels (at most {MAX_MOVE}) and "
            f"the average Jaccard from {first:.1f} to {second:.1f} (at most {MAX_LOSS} less). "
            f"Nothing was written; {remedy}, or --accept."
        )
    return move, fails


def save_tracks(tracks: ScoredTracks, folder: Path) -> None:
    """Write tracks of the acceptance clips to a bundle, for engines to be compared with.

    Nothing is written if no point is tracked: an engine could not differ then.
    """
    if tracks.followed.compared.any():
        save_acceptance_tracks(folder / ACCEPTANCE, tracks.followed)


def attend_piecewise(path: nn.Module) -> None:
    """Make torch compute attention piece by piece, which it does only in FP32.

    Rounded attention holds all weights of all heads at once: 16 GB for 10,000 tokens in 12 heads.
    The effect of this rounding on tracks was judged before.
    """
    for module in path.modules():
        if isinstance(module, Attend):
            module.precision = torch.float32
