"""The margins from which on a match by descriptor is certain, chosen by the official metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from vditrack.bundle.configuration import FlowTracking, Matching
from vditrack.bundle.redetection import CertainMatches
from vditrack.errors import InputError
from vditrack_export.calibrate.clips import EncodedClip
from vditrack_export.calibrate.thresholds import Means, average_scores
from vditrack_export.calibrate.trials import track_clip

TRIED = (
    None,
    CertainMatches(min_distinction=0.03, min_margin=0.06),
    CertainMatches(min_distinction=0.05, min_margin=0.1),
    CertainMatches(min_distinction=0.1, min_margin=0.2),
)
"""The margins that are tried; None for no certain matches."""


@dataclass(frozen=True)
class MarginsResult:
    """Margins and the metrics of tracking with them."""

    certain: CertainMatches | None
    means: Means

    @property
    def objective(self) -> float:
        """The sum that is maximised: all three metrics."""
        return self.means.objective + self.means.position_accuracy


@dataclass(frozen=True)
class Margins:
    """All margins that were tried."""

    results: tuple[MarginsResult, ...]

    @property
    def chosen(self) -> MarginsResult:
        """The best; the first of equals, which is tracking without certain matches."""
        return max(self.results, key=lambda result: result.objective)


def require_recovery(flow_tracking: FlowTracking, option: str) -> None:
    """Check that lost points are searched for, without which no match decides where a point is.

    Args:
        flow_tracking: the bundle's settings of the flow tracker.
        option: of the command line that needs it.

    Raises:
        InputError: they are not.

    """
    if flow_tracking.recovery is None:
        raise InputError(
            f"the bundle does not search for lost points, so {option} has nothing to choose. Leave "
            "it out, or add [matching.flow_tracking.recovery] to its card and export it again."
        )


def choose_margins(
    clips: Sequence[EncodedClip],
    settings: Matching,
    flow_tracking: FlowTracking,
    report_share: Callable[[float], None],
) -> Margins:
    """Track clips with all margins of `TRIED`.

    Args:
        clips: clips with their features.
        settings: the bundle's settings.
        flow_tracking: those of the flow tracker, with the weights of visibility to use.
        report_share: called with the share of a clip that was tracked since the last call.

    """
    results = []
    for certain in TRIED:
        tried = msgspec.structs.replace(flow_tracking, certain=certain)
        trials = [
            track_clip(clip, settings, tried, tried.visibility, report_share) for clip in clips
        ]
        results.append(MarginsResult(certain, average_scores([t.scores() for t in trials])))
    return Margins(tuple(results))
