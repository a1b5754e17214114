"""Points followed through a clip, with the evidence that they are seen and whether they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools
from vditrack.bundle.configuration import FlowTracking, Matching, Visibility
from vditrack.evaluation.metrics.points import Comparison, PointScores
from vditrack.points.flow_tracker import FlowTracker
from vditrack_export.calibrate.clips import Advanced, DescribedClip
from vditrack_export.calibrate.fit import sigmoid

Counts = NDArray[np.float64]

RIGHT_WITHIN = 8
"""Pixels at 256 x 256 within which a point is where it should be."""


@dataclass(frozen=True)
class Trial:
    """What following Q points through T frames came to."""

    compared: Comparison
    """With the truth: visible is what was said, counted what comes after the query."""
    evidence: NDArray[np.float32]
    """[Q, T, 4] as in `FlowTracker.evidence`; 0 where a point is not followed."""
    inside: Bools
    """[Q, T] followed, and within the picture: elsewhere a point is hidden whatever it looks like.
    """

    @property
    def judged(self) -> Bools:
        """[Q, T] where the evidence decides."""
        return self.inside & self.compared.counted

    @property
    def seen(self) -> Bools:
        """[Q, T] truly visible, and at its place: what confidence should be high for."""
        return self.compared.true_visible & self.compared.near(RIGHT_WITHIN)

    def confidence(self, weights: Visibility) -> Counts:
        """[Q, T] that other weights would have had in what was recorded."""
        return self.inside * sigmoid(weights.bias + self.evidence @ np.array(weights.of_evidence))

    def scores(self, visible: Bools | None = None) -> PointScores:
        """Official metrics, of what was said or of another opinion about what is visible."""
        said = self.compared.visible if visible is None else visible
        return replace(self.compared, visible=said).scores()


@dataclass(frozen=True)
class Rows:
    """All that is judged in several trials, R rows."""

    evidence: Counts
    """[R, 4]"""
    seen: Bools
    """[R]"""
    weights: Counts
    """[R] that sum to 1 in each clip."""


def rows_of(trials: Sequence[Trial]) -> Rows:
    """Collect what the evidence decides, each clip weighted equally."""
    counts = [int(trial.judged.sum()) for trial in trials]
    return Rows(
        np.concatenate([trial.evidence[trial.judged] for trial in trials]).astype(np.float64),
        np.concatenate([trial.seen[trial.judged] for trial in trials]),
        np.concatenate([np.full(count, 1 / max(count, 1)) for count in counts]),
    )


def follow(
    described: DescribedClip,
    settings: Matching,
    flow_tracking: FlowTracking,
    weights: Visibility,
    advanced: Advanced,
) -> Trial:
    """Follow a clip's points forward from their queries, as `Tracker.track` does.

    Args:
        described: the clip.
        settings: of the bundle.
        flow_tracking: the same's.
        weights: in the place of those in ``flow_tracking``.
        advanced: see `Advanced`.

    """
    clip, asked, starts = described.clip, described.asked, described.starts
    alive = FlowTracker(
        described.grid, settings, msgspec.structs.replace(flow_tracking, visibility=weights)
    )
    shape = asked.counted.shape
    points, visible = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.bool_)
    evidence, followed = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.bool_)
    for frame, features in enumerate(described.maps()):
        alive.advance(features, clip.frames[frame])
        # Points that begin in this frame have no evidence yet.
        evidence[alive.ids, frame], followed[alive.ids, frame] = alive.evidence, True
        beginning = np.flatnonzero(asked.frames == frame)
        if len(beginning):
            alive.add(beginning, starts[beginning])
        points[alive.ids, frame], visible[alive.ids, frame] = alive.points, alive.visible
        advanced(1 / shape[1])
    missed = points - clip.points[asked.tracks]
    compared = Comparison(
        (missed**2).sum(axis=2), clip.visible[asked.tracks], visible, asked.counted
    )
    inside = ((points >= 0) & (points < clip.size)).all(axis=2)
    return Trial(compared, evidence, followed & inside)
