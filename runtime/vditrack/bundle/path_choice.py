"""The part of the configuration of flow tracking that chooses paths through a block of frames."""

from __future__ import annotations

import msgspec


class PathChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the path of a point is chosen among candidates (`vditrack.points.path_choice`).

    All are log-odds, linear in the evidence. `vditrack calibrate --paths` fits them on clips with
    known tracks. Distances are in pixels at a width of 256.
    """

    bias: float
    """Of each place that a point may be visible at."""
    similarity: float
    """Weight of the cosine similarity with the point's first descriptor."""
    distinction: float
    """Weight of the excess of that over the best match elsewhere in the frame."""
    near_correlation: float
    """Weight of the correlation of the point's near patch, at least 0."""
    wide_correlation: float
    """Weight of the correlation of its wide patch, at least 0."""
    tracked: float
    """Weight of exp(-d / 2), where d is the distance from where the tracker put the point."""
    tracked_confidence: float
    """Weight of that times the log-odds of the tracker's confidence."""
    forward_error: float
    """Weight of log(1 + e), where e is the forward-backward error of flow to the next frame."""
    backward_error: float
    """The same of flow to the frame before."""
    step: float
    """Of each step from a place to one of the next frame."""
    step_on: float
    """Weight of exp(-d^2) for such a step; d is the distance from where flow leads, forward or
    backward, whichever is less."""
    step_beside: float
    """Weight of exp(-d / 3)."""
    step_off: float
    """Weight of log(1 + d)."""
    step_disagreement: float
    """Weight of log(1 + d) for the other direction."""
    lost: float
    """Of a step from a place to being hidden."""
    found: float
    """Of a step from being hidden to a place."""
    hidden: float
    """Of staying hidden."""

    @property
    def of_place(self) -> tuple[float, ...]:
        """The weights of the evidence at a place, in the order above."""
        return (
            *(self.similarity, self.distinction, self.near_correlation, self.wide_correlation),
            *(self.tracked, self.tracked_confidence, self.forward_error, self.backward_error),
        )

    @property
    def of_step(self) -> tuple[float, ...]:
        """The weights of the evidence for a step, in the order above."""
        return self.step_on, self.step_beside, self.step_off, self.step_disagreement
