"""The part of the configuration of flow tracking that decides where lost points are found again.

See `vditrack.bundle.configuration` for what "chosen" means.
"""

from __future__ import annotations

import msgspec

from vditrack.bundle.value_types import Cosine, Few, NonNegative, Positive, PositiveReal, Share


class Recovery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How lost points are found again: by descriptor, then by patch.

    A lost point is searched for near its predicted position by its template, and in the whole frame
    by its first descriptor.
    """

    min_similarity: Cosine
    """Least cosine with the point's first descriptor at the place where it is found."""
    min_correlation: float
    """Least mean correlation of the point's near and wide patches there."""
    wide_radius: Few = 14
    """Radius of the wide patch, aligned before the near one. Chosen."""
    wide_rounds: Positive = 4
    """Gauss-Newton steps on the wide patch. Chosen."""
    max_wide_shift: PositiveReal = 8.0
    """Pixels of the wide patch by which it may move from a match, at most. Chosen."""
    max_shift: PositiveReal = 10.0
    """Pixels of the near patch by which both patches together may move from a match, if that is
    more than ``max_wide_shift``. Chosen."""
    radius: PositiveReal = 8.0
    """How far from its predicted position a lost point may return, in pixels at a width of 256.
    Chosen."""
    radius_growth: NonNegative = 3.0
    """How much farther for each frame that it was lost, in the same unit. Chosen."""
    anywhere_after: NonNegative = 8.0
    """Frames after which a lost point may return anywhere, counted while it is expected inside the
    frame. Chosen."""
    min_wide_correlation: float = 0.5
    """Least correlation of the wide patch where a point is found. Chosen."""
    min_near_inside: Share = 0.75
    """Share of the near patch, by weight, that must be inside the frame where a point is found.
    Chosen."""
    min_wide_inside: Share = 0.5
    """The same of the wide patch. Chosen."""
    rival_distance: PositiveReal = 8.0
    """Distance, in pixels at a width of 256, from which on a second match is a rival. Chosen."""
    rival_margin: NonNegative = 0.05
    """By how much the correlation of a match must exceed that of its rivals. Chosen."""
    min_unplaced_correlation: float = 0.9
    """What ``min_correlation`` is for a point of whose position nothing is known, after a jump of
    the clock. Chosen."""
    certain_correlation: float = 0.98
    """Least correlation at which such a point is found though its descriptor resembles another
    place of its first frame as much. In 12,595 searches in other pictures none was above 0.97."""


class CertainMatches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When descriptors alone show where a point is (`vditrack.points.certain_matches`).

    A point's template here is the mean of its first descriptor and of the updated one. Both margins
    depend on the descriptors: where those tell surfaces less well apart, they are larger.
    """

    min_distinction: NonNegative
    """Least excess of a match's cosine over that of the point's rivals in the frames before."""
    min_margin: NonNegative
    """Least excess of a match's cosine over that of every other place of the frame."""
    forgetting: NonNegative = 0.01
    """What is subtracted from a rival's cosine in each frame in which the point is visible.
    Chosen."""


class GapFilling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How gaps in the tracks of a clip are filled backward (`vditrack.points.gap_filling`)."""

    frames: Few = 64
    """Frames of a block. Gaps are filled within a block, whose frames are in memory."""
    min_confidence: Share = 0.75
    """Least confidence, tracked backward, with which a gap is filled. Chosen: tracks of wrong
    re-detections had 0.8 at most in most clips, and the others 0.9 or more."""
    max_distance: PositiveReal = 4.0
    """Distance, in pixels at a width of 256, up to which the tracks forward and backward agree.
    Chosen."""
