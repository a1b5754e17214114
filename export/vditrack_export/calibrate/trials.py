"""Points tracked through a clip, with the visibility signals and the truth of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from vditrack.arrays import Bools, Doubles, Floats
from vditrack.bundle.configuration import FlowTracking, Matching, Visibility
from vditrack.evaluation.metrics.points import Comparison, PointScores
from vditrack.evaluation.protocols import RASTER
from vditrack.points.flow_tracker import FlowTracker
from vditrack_export.calibrate.clips import EncodedClip, ReportShare
from vditrack_export.calibrate.fit import sigmoid

RIGHT_WITHIN = 8
"""Distance, in pixels of the 256 x 256 raster, below which a tracked point is on its target."""


@dataclass(frozen=True)
class Trial:
    """The tracks of Q points through T frames of one clip."""

    compared: Comparison
    """The comparison with the truth; frames up to the query are not counted."""
    evidence: Floats
    """The signals, float32 [Q, T, 4] as in `FlowTracker.evidence`; 0 where a point is not tracked.
    """
    decidable: Bools
    """Whether the signals decide about visibility, [Q, T], as in `FlowTracker.decidable`. Elsewhere
    a point is reported as hidden whatever they are."""

    @property
    def judged(self) -> Bools:
        """Whether the signals decide about visibility in a frame that counts, [Q, T]."""
        return self.decidable & self.compared.counted

    @property
    def seen(self) -> Bools:
        """Whether a point is truly visible and tracked to its target, [Q, T]: the labels."""
        return self.compared.true_visible & self.compared.near(RIGHT_WITHIN)

    def confidence(self, weights: Visibility) -> Doubles:
        """Return the confidences that other weights give to the recorded signals, [Q, T]."""
        return self.decidable * sigmoid(
            weights.bias + self.evidence @ np.array(weights.of_evidence)
        )

    def scores(self, visible: Bools | None = None) -> PointScores:
        """Return TAP-Vid's metrics of the tracks, with other visibilities [Q, T] if given."""
        predicted = self.compared.visible if visible is None else visible
        return replace(self.compared, visible=predicted).scores()


@dataclass(frozen=True)
class Rows:
    """The R pairs of point and frame, of several trials, in which the signals decide."""

    evidence: Doubles
    """The signals, [R, 4]."""
    seen: Bools
    """The labels, [R]."""
    weights: Doubles
    """The weights of the rows, [R]; they sum to 1 in each clip."""


def collect_rows(trials: Sequence[Trial]) -> Rows:
    """Return the judged rows of all trials, each clip with the same total weight."""
    counts = [int(trial.judged.sum()) for trial in trials]
    return Rows(
        np.concatenate([trial.evidence[trial.judged] for trial in trials]).astype(np.float64),
        np.concatenate([trial.seen[trial.judged] for trial in trials]),
        np.concatenate([np.full(count, 1 / max(count, 1)) for count in counts]),
    )


def score_still_points(encoded: EncodedClip) -> PointScores:
    """Return TAP-Vid's metrics of points that stay at their queries and are always visible."""
    queries, clip = encoded.queries, encoded.clip
    error = encoded.query_points[:, None] - clip.points[queries.tracks]
    error *= RASTER / clip.size
    visible = np.ones(queries.counted.shape, np.bool_)
    true_visible = clip.visible[queries.tracks]
    return Comparison((error**2).sum(axis=2), true_visible, visible, queries.counted).scores()


def track_clip(
    encoded: EncodedClip,
    settings: Matching,
    flow_tracking: FlowTracking,
    weights: Visibility,
    report_share: ReportShare,
) -> Trial:
    """Track a clip's points forward from their queries, as `Tracker.track` does, gaps unfilled.

    Args:
        encoded: the clip with its features.
        settings: the bundle's settings.
        flow_tracking: the bundle's settings of the flow tracker.
        weights: the weights of visibility to use in place of those in ``flow_tracking``.
        report_share: called after each frame, see `ReportShare`.

    """
    clip, queries, starts = encoded.clip, encoded.queries, encoded.query_points
    tracker = FlowTracker(
        encoded.grid, settings, msgspec.structs.replace(flow_tracking, visibility=weights)
    )
    shape = queries.counted.shape
    points, visible = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.bool_)
    evidence, decidable = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.bool_)
    for frame, features in enumerate(encoded.read_maps()):
        tracker.advance(features, clip.frames[frame])
        # Points that are added in this frame have no signals yet.
        evidence[tracker.ids, frame] = tracker.evidence
        decidable[tracker.ids, frame] = tracker.decidable
        added = np.flatnonzero(queries.frames == frame)
        if len(added):
            tracker.add(added, starts[added])
        points[tracker.ids, frame], visible[tracker.ids, frame] = tracker.points, tracker.visible
        report_share(1 / shape[1])
    error = (points - clip.points[queries.tracks]) * (RASTER / clip.size)
    compared = Comparison(
        (error**2).sum(axis=2), clip.visible[queries.tracks], visible, queries.counted
    )
    return Trial(compared, evidence, decidable)
