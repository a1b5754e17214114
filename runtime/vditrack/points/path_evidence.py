"""Candidate places of points in the frames of a block, and what speaks for each.

A point's candidates in a frame are where the tracker put it, and the best match of its first
descriptor in the whole frame; and where optical flow leads from those of the frame before and of
the frame after.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from vditrack.arrays import Bools, Floats, Grey, Indices
from vditrack.bundle.configuration import FlowTracking, Matching, OpticalFlow
from vditrack.bundle.redetection import Recovery
from vditrack.coordinates import Grid, pixel_unit
from vditrack.features.feature_map import FeatureMap
from vditrack.points.appearance import AppearanceReader
from vditrack.points.array_tables import select_rows
from vditrack.points.camera_motion import STILL
from vditrack.points.descriptor_matching import (
    Comparison,
    compare_with_all,
    cosines,
    refine_best,
)
from vditrack.points.optical_flow import track_forward_backward_at_levels
from vditrack.points.patch_alignment import Patches, Placement, place_unwarped
from vditrack.points.path_choice import PathEvidence
from vditrack.points.point_memory import Appearance, View, are_close
from vditrack.points.pyramid import Pyramid
from vditrack.points.recovery import PointSearch

_MATCHES = 2
"""Candidates before flow: the tracker's place, and the best match."""
_CELLS_APART = 2
"""Cells over which the descriptor of one place is spread: it is interpolated between cells."""
_SURE = 0.5
"""Confidence from which on the tracker is sure."""
_MORE_ALIKE = 0.1
"""Excess of cosine from which on another place resembles a point more."""
_MIN_MARGIN = 0.1
"""Excess of a match's cosine over that of every other place, from which on it is a candidate."""
_BESIDE = 8.0
"""Pixels at a width of 256 up to which a place is that of the best match."""
_MIN_CORRELATION = 0.6
"""Correlation from which on a match is moved to where its patches are."""
_SAME = 0.5
"""Pixels at a width of 256 within which a place is one of the candidates before again."""
_MAX_SHIFT = 1.5
"""Pixels at a width of 256 by which the near patch is aligned at most, to be compared."""
_ROUNDS = 4
"""Gauss-Newton steps of that alignment."""
_MAX_ERROR = 20.0
"""Forward-backward error, in pixels at a width of 256, above which more makes no difference."""
_LOST = float(np.log1p(_MAX_ERROR))
"""The evidence of that error."""
_MAX_DISTANCE = 90.0
"""The same of the distance between a place and where flow leads."""
_LEAST_CONFIDENCE = 0.003
"""Of the tracker, before the logarithm is taken."""


@dataclass(frozen=True)
class BlockFrame:
    """A frame of a block, in the order in which it was tracked."""

    place: int
    """Number of the frame in the block."""
    image: Grey
    features: FeatureMap


@dataclass(frozen=True)
class TrackedPoints:
    """What a tracker said of N points in T frames, in the order in which it tracked them."""

    appearance: Appearance
    """Of the points at their queries."""
    points: Floats
    """[N, T, 2] (x, y) in pixels; the query in its frame."""
    confidence: Floats
    """[N, T]"""


@dataclass(frozen=True)
class _Matches:
    """The candidates before flow: the tracker's places, and the best matches."""

    places: Floats
    """[N, T, 2, 2] (x, y) in pixels."""
    usable: Bools
    """[N, T, 2]"""
    best: Floats
    """[N, T, 2] where the descriptor alone matches best, in pixels."""
    similarity: Floats
    """[N, T] cosine there."""
    second: Floats
    """[N, T] the largest cosine elsewhere."""


@dataclass(frozen=True)
class _Here:
    """A frame, and candidate places in it."""

    view: View
    levels: Indices
    """[N] of the pyramid on which each point is followed."""
    places: Floats
    """[N, S, 2] (x, y) in pixels."""
    usable: Bools
    """[N, S]"""


class PathReader:
    """Reads the evidence for the paths of points."""

    def __init__(
        self, grid: Grid, settings: Matching, flow_tracking: FlowTracking, recovery: Recovery
    ) -> None:
        """Prepare the patches.

        Args:
            grid: the bundle's feature grid.
            settings: of the search by descriptors.
            flow_tracking: of optical flow and patches.
            recovery: of lost points.

        """
        self._grid, self._settings = grid, settings
        self._flow, self._recovery = flow_tracking.optical_flow, recovery
        self._flow_once = msgspec.structs.replace(self._flow, check_backward=False)
        self._reader = AppearanceReader(grid, settings, flow_tracking)
        self._search = PointSearch(self._reader, settings, flow_tracking, recovery)

    def find_doubtful(self, frames: Sequence[BlockFrame], tracked: TrackedPoints) -> Bools:
        """Return of which points the tracker is not sure, or which resemble another place more.

        Args:
            frames: T frames.
            tracked: N points.

        Returns:
            bool [N, T].

        """
        doubtful = tracked.confidence < _SURE
        query = tracked.appearance
        for number, view in enumerate(self._views(frames)):
            points = tracked.points[:, number]
            found = self._compare(query, view, points)
            far = ~are_close(found.best / view.scale, points, _BESIDE * view.unit)
            here = cosines(query.descriptor, view.describe(points, self._settings.template_falloff))
            doubtful[:, number] |= far & (found.similarity > here + _MORE_ALIKE)
        return np.asarray(doubtful, np.bool_)

    def read(
        self,
        frames: Sequence[BlockFrame],
        tracked: TrackedPoints,
        first: Indices,
        queried: Bools,
    ) -> PathEvidence:
        """Read the evidence for paths through T frames.

        Args:
            frames: T frames.
            tracked: N points.
            first: [N] number of the first of those frames in which each point is tracked.
            queried: [N] whether it is the frame of the point's query.

        """
        wide = self._reader.wide.prepare(tracked.appearance.wide)
        matches = self._match(frames, tracked, wide)
        matches.usable[:] &= np.arange(len(frames))[:, None] >= first[:, None, None]
        places, usable = self._add_flow(frames, tracked, matches)
        count, number, options = usable.shape
        of_places = np.zeros((count, number, options, 8), np.float32)
        of_steps = np.zeros((count, max(0, number - 1), options, options, 4), np.float32)
        before: _Here | None = None
        for frame, view in enumerate(self._views(frames)):
            here = _Here(
                view, view.patch_levels(tracked.appearance), places[:, frame], usable[:, frame]
            )
            self._describe(of_places[:, frame], tracked, wide, (matches, frame), here)
            if before is not None:
                ahead, forward_error = self._follow(before, here, self._flow)
                back, backward_error = self._follow(here, before, self._flow)
                of_places[:, frame - 1, :, 6], of_places[:, frame, :, 7] = (
                    forward_error,
                    backward_error,
                )
                of_steps[:, frame - 1] = _weigh_steps(
                    np.linalg.norm(ahead[:, :, None] - here.places[:, None], axis=3) / view.unit,
                    np.linalg.norm(before.places[:, :, None] - back[:, None], axis=3) / view.unit,
                )
            before = here
        unit = pixel_unit(frames[0].image.shape)
        return PathEvidence(
            np.asarray(places / unit, np.float32), usable, of_places, of_steps, first, queried
        )

    def _views(self, frames: Sequence[BlockFrame]) -> Iterator[View]:
        for frame in frames:
            image = Pyramid(frame.image)
            scale = self._grid.model_from_frame(image.size)
            yield View(frame.features, image, scale, 1.0, STILL)

    def _compare(self, query: Appearance, view: View, points: Floats) -> Comparison:
        apart = self._recovery.rival_distance * view.unit * float(view.scale.max())
        apart = max(apart, _CELLS_APART * self._grid.stride)
        positions = view.model_positions(points)
        return compare_with_all(query.descriptor, view.feature_map, positions, apart)

    def _match(
        self, frames: Sequence[BlockFrame], tracked: TrackedPoints, wide: Patches
    ) -> _Matches:
        """Return the candidates before flow, and what they are compared with."""
        query, rows = tracked.appearance, np.arange(len(tracked.points))
        shape = tracked.confidence.shape
        matches = _Matches(
            np.zeros((*shape, _MATCHES, 2), np.float32),
            np.ones((*shape, _MATCHES), np.bool_),
            np.zeros((*shape, 2), np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )
        for frame, view in enumerate(self._views(frames)):
            points = tracked.points[:, frame]
            compared = self._compare(query, view, points)
            found = refine_best(compared, rows, view.feature_map, self._settings)
            best = np.asarray(found.points / view.scale, np.float32)
            start = Placement(best, place_unwarped(best).shapes * view.patch_scale(query))
            aligned, correlation = self._search.align_to_match(query, view, start, wide)
            placed = aligned.where(correlation > _MIN_CORRELATION, start)
            matches.places[:, frame, 0], matches.places[:, frame, 1] = points, placed.points
            # A point that the tracker follows out of the picture is nowhere inside.
            followed = view.image.contains(points)
            matches.usable[:, frame] = followed[:, None]
            matches.usable[:, frame, 1] &= view.image.contains(placed.points)
            # A match that has a rival as good is no match.
            matches.usable[:, frame, 1] &= compared.margin > _MIN_MARGIN
            matches.best[:, frame] = best
            matches.similarity[:, frame] = compared.similarity
            matches.second[:, frame] = compared.similarity - compared.margin
        return matches

    def _add_flow(
        self, frames: Sequence[BlockFrame], tracked: TrackedPoints, matches: _Matches
    ) -> tuple[Floats, Bools]:
        """Return all candidates [N, T, S, 2], and which of them are new and inside, [N, T, S]."""
        shape = (*matches.usable.shape[:2], 3 * _MATCHES)
        places, usable = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.bool_)
        own, ahead, behind = (slice(at, at + _MATCHES) for at in range(0, shape[2], _MATCHES))
        places[:, :, own], usable[:, :, own] = matches.places, matches.usable
        before: _Here | None = None
        for frame, view in enumerate(self._views(frames)):
            here = _Here(
                view,
                view.patch_levels(tracked.appearance),
                matches.places[:, frame],
                matches.usable[:, frame],
            )
            if before is not None:
                places[:, frame, ahead], error = self._follow(before, here, self._flow_once)
                usable[:, frame, ahead] = before.usable & (error < _LOST)
                places[:, frame - 1, behind], error = self._follow(here, before, self._flow_once)
                usable[:, frame - 1, behind] = here.usable & (error < _LOST)
            before = here
        unit, (height, width) = pixel_unit(frames[0].image.shape), frames[0].image.shape
        usable &= ((places >= 0) & (places < (width, height))).all(axis=3)
        usable &= matches.usable[:, :, :1]
        for option in range(_MATCHES, shape[2]):
            apart = np.linalg.norm(places[:, :, option, None] - places[:, :, :option], axis=3)
            again = (apart < _SAME * unit) & usable[:, :, :option]
            usable[:, :, option] &= ~again.any(axis=2)
        return places, usable

    def _follow(self, before: _Here, after: _Here, flow: OpticalFlow) -> tuple[Floats, Floats]:
        """Follow usable places [N, S, 2] by flow into another frame.

        Returns:
            Where it leads [N, S, 2], and what `PathChoice` weights of its error [N, S].

        """
        view, places, usable = before.view, before.places, before.usable
        led, error = places.copy(), np.zeros(usable.shape, np.float32)
        points, levels = places[usable], before.levels[np.nonzero(usable)[0]]
        if len(points):
            led[usable], wrong = track_forward_backward_at_levels(
                view.image, after.view.image, points, points, levels, flow
            )
            error[usable] = np.log1p(np.minimum(wrong / view.unit, _MAX_ERROR))
        return led, error

    def _describe(
        self,
        evidence: Floats,
        tracked: TrackedPoints,
        wide_patches: Patches,
        of_frame: tuple[_Matches, int],
        here: _Here,
    ) -> None:
        """Write the evidence [N, S, 8] at the usable places of a frame, but for flow's errors."""
        view, places, usable = here.view, here.places, here.usable
        matches, frame = of_frame
        rows, options = np.nonzero(usable)
        points = places[rows, options]
        query = select_rows(tracked.appearance, rows)
        described = view.describe(points, self._settings.template_falloff)
        similarity = cosines(query.descriptor, described)
        beside = are_close(points, matches.best[rows, frame], _BESIDE * view.unit)
        rival = np.where(beside, matches.second[rows, frame], matches.similarity[rows, frame])
        near, wide = self._correlate(query, select_rows(wide_patches, rows), view, points)
        apart = np.linalg.norm(points - tracked.points[rows, frame], axis=1) / view.unit
        sure = np.clip(tracked.confidence[rows, frame], _LEAST_CONFIDENCE, 1 - _LEAST_CONFIDENCE)
        beside_tracked = np.exp(-apart / 2)
        evidence[rows, options, :6] = np.stack(
            [
                *(similarity, similarity - rival, near, wide),
                *(beside_tracked, beside_tracked * np.log(sure / (1 - sure))),
            ],
            axis=1,
        )

    def _correlate(
        self, query: Appearance, wide: Patches, view: View, points: Floats
    ) -> tuple[Floats, Floats]:
        """Return the correlations [N] of near and wide patches at points [N, 2], at least 0.

        The near patch may move a little, and turn.
        """
        near, image, scale = self._reader.near, view.image, view.patch_scale(query)
        start = Placement(points, place_unwarped(points).shapes * scale)
        aligned = near.align(query.near, image, start, _ROUNDS)
        close = are_close(aligned.points, points, _MAX_SHIFT * view.unit)
        close &= near.is_believable(aligned.shapes / scale)
        aligned = aligned.where(close, start)
        before = near.correlate(query.near, image, start)
        after = near.correlate(query.near, image, aligned)
        placed = aligned.where(after >= before, start)
        to_wide = query.wide_size[:, None, None]
        placed = Placement(placed.points, placed.shapes * to_wide)
        of_wide = self._reader.wide.correlate(wide, image, placed)
        return np.maximum(0, np.maximum(before, after)), np.maximum(0, of_wide)


def _weigh_steps(ahead: Floats, back: Floats) -> Floats:
    """Return what `PathChoice.of_step` weights, [N, S, S, 4].

    Args:
        ahead: [N, S, S] distance of the later place from where flow leads from the earlier one.
        back: [N, S, S] the same backward. Both in pixels at a width of 256.

    """
    less = np.minimum(np.minimum(ahead, back), _MAX_DISTANCE)
    more = np.minimum(np.maximum(ahead, back), _MAX_DISTANCE)
    parts = [np.exp(-(less**2)), np.exp(-less / 3), np.log1p(less), np.log1p(more)]
    return np.asarray(np.stack(parts, axis=3), np.float32)
