"""Re-detection of lost points, by descriptor and then by patch.

Candidates are the predicted position, the best match of the template near it, and the best match of
the query's descriptor in the whole frame. The best match elsewhere is their rival. A point may
return within a radius of its predicted position that grows while it is lost; so a point that is
expected outside the frame does not return elsewhere. Only one that was missed inside the frame for
long, or whose position is not known, may return anywhere. A match that has a rival as good is no
match. For a point whose position is not known, neither is a match that is less like its query than
another place of the query's frame was, unless both patches are the same.
"""

from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Floats, Indices
from vditrack.bundle.configuration import FlowTracking, Matching
from vditrack.bundle.redetection import Recovery
from vditrack.points.appearance import AppearanceReader
from vditrack.points.array_tables import assign_rows, select_rows
from vditrack.points.descriptor_matching import Match, cosines, match, match_elsewhere
from vditrack.points.patch_alignment import Patches, Placement, place_unwarped
from vditrack.points.point_memory import Appearance, PointMemory, View, are_close
from vditrack.points.point_motion import restart_motion

_SAME = 1.0
"""Pixels at a width of 256 between matches that are one."""
_TURNED = 0.05
"""A point's last shape is tried beside its first one where they differ by more."""


@dataclass(frozen=True)
class _Candidates:
    """One candidate place for each of N lost points."""

    placement: Placement
    score: Floats
    """[N] mean correlation of the near and the wide patch; -1 where there is none."""


class PointSearch:
    """Searches for lost points."""

    def __init__(
        self,
        reader: AppearanceReader,
        matching: Matching,
        flow_tracking: FlowTracking,
        settings: Recovery,
    ) -> None:
        """Prepare searches.

        Args:
            reader: has read the points' appearance.
            matching: of the search by descriptors.
            flow_tracking: of patch alignment.
            settings: of recovery.

        """
        self._near, self._wide = reader.near, reader.wide
        self._matching, self._settings = matching, settings
        self._patches = flow_tracking.patches

    def may_be_seen(self, memory: PointMemory, view: View, predicted: Floats) -> Bools:
        """Return which points may be inside the frame, given their predicted positions [N, 2]."""
        height, width = view.image.size
        nearest = np.clip(predicted, 0, np.array([width, height], np.float32))
        return self._may_return(memory, view, nearest, predicted, np.arange(len(predicted)))

    def may_reappear(
        self, memory: PointMemory, view: View, places: Floats, predicted: Floats
    ) -> Bools:
        """Return which points may be at other places, if they are like nothing else there.

        A point that left across an edge is nowhere else in the frame. One that is expected inside
        may be anywhere.

        Args:
            memory: of N points.
            view: the frame.
            places: [N, 2] (x, y) in pixels of the frame.
            predicted: [N, 2] (x, y) in pixels of the frame.

        """
        height, width = view.image.size
        inside = np.minimum(predicted, np.array([width, height], np.float32) - predicted)
        expected = inside.min(axis=1) > self._settings.radius * view.unit
        rows = np.arange(len(places))
        returns = self._may_return(memory, view, places, predicted, rows)
        return np.asarray(expected | returns, np.bool_)

    def are_confirmed(
        self, memory: PointMemory, view: View, placement: Placement, correlation: Floats
    ) -> Bools:
        """Return which textureless points [N] are where the camera's motion leads, by patch.

        Args:
            memory: of N points.
            view: the frame.
            placement: of their near patches.
            correlation: [N] of the patches there.

        """
        confirmed = memory.query.textureless & ~memory.unplaced
        confirmed &= correlation > self._settings.min_correlation
        inside = self._near.share_inside(memory.query.near, view.image, placement)
        confirmed &= inside >= self._settings.min_near_inside
        return np.asarray(confirmed & view.image.contains(placement.points), np.bool_)

    def recover(self, memory: PointMemory, view: View, placement: Placement) -> None:
        """Move lost points to where they are re-detected, in place.

        Args:
            memory: of all points.
            view: the frame to search, with a feature map.
            placement: of the points; where lost points are expected.

        """
        searched = (memory.lost_frames > 0) & ~memory.query.textureless
        searched &= self.may_be_seen(memory, view, placement.points)
        lost = np.flatnonzero(searched)
        if not len(lost):
            return
        found, is_found = self.search(select_rows(memory, lost), view, placement.points[lost])
        recovered, settings = lost[is_found], self._settings
        departure = found.points[is_found] - placement.points[recovered]
        assign_rows(placement, recovered, select_rows(found, is_found))
        limit = settings.radius_growth * settings.anywhere_after * view.unit
        near = np.linalg.norm(departure, axis=1) < limit
        near &= ~memory.unplaced[recovered]
        correction = departure * view.scale / memory.lost_frames[recovered, None]
        corrected = memory.velocity[recovered] + correction
        restart_motion(memory, recovered)
        # A point that is found far away does not have the velocity it was predicted with.
        memory.velocity[recovered] = np.where(near[:, None], corrected, np.float32(0))
        memory.moving[recovered] = near

    def search(self, memory: PointMemory, view: View, predicted: Floats) -> tuple[Placement, Bools]:
        """Search for N lost points.

        Args:
            memory: of the points.
            view: the frame to search.
            predicted: [N, 2] (x, y) in pixels of the frame, where the points are expected.

        Returns:
            The best placement of each point, and which points [N] are found.

        """
        settings, query = self._settings, memory.query
        wide = self._wide.prepare(query.wide)
        tried = self._try(memory, wide, view, self._matches(memory, view, predicted), predicted)
        # The last match is of a rival, which may only say that no match is one.
        best, score = _best_of(tried[:-1])
        apart = settings.rival_distance * view.unit
        unplaced, strict = memory.unplaced, settings.min_unplaced_correlation
        by_patch_alone = unplaced | ~memory.described
        is_found = score >= np.where(by_patch_alone, strict, settings.min_correlation)
        is_found &= view.image.contains(best.points)
        for rival in tried:
            is_found &= ~self._is_rival(rival, best, score, apart)
        descriptors = view.describe(best.points, self._matching.template_falloff)
        similarity = cosines(query.descriptor, descriptors)
        is_found &= (similarity >= settings.min_similarity) | ~memory.described
        # In another picture, something always resembles the point a little, but never both patches.
        certain = score >= settings.certain_correlation
        is_found &= ~unplaced | certain | (similarity > query.rival_similarity)
        return best, is_found

    def _is_rival(self, rival: _Candidates, best: Placement, score: Floats, apart: float) -> Bools:
        """Return which candidates [N] are elsewhere than the best ones, and nearly as good."""
        elsewhere = ~are_close(rival.placement.points, best.points, apart)
        return np.asarray(elsewhere & (rival.score > score - self._settings.rival_margin), np.bool_)

    def _matches(self, memory: PointMemory, view: View, predicted: Floats) -> list[Match]:
        """Return the candidate places: predicted, near that, anywhere; and a rival's, elsewhere."""
        features, matching, count = view.feature_map, self._matching, len(predicted)
        grid = features.grid
        positions = view.model_positions(predicted)
        centre = np.clip(positions, 0, np.array([grid.width, grid.height], np.float32) - 1)
        nearby = np.arange(2 * count) < count
        # One search for both: a lost point is one of few, so most of the time is in the calls.
        both = match(
            np.concatenate([memory.template, memory.query.descriptor]),
            features,
            np.tile(centre, (2, 1)),
            nearby,
            matching,
            view.intervals,
        )
        near, best = select_rows(both, nearby), select_rows(both, ~nearby)
        apart = self._settings.rival_distance * view.unit * float(view.scale.max())
        return [
            Match(positions, np.ones(count, np.float32)),
            near,
            best,
            match_elsewhere(memory.query.descriptor, features, best.points, apart),
        ]

    def _try(
        self,
        memory: PointMemory,
        wide: Patches,
        view: View,
        matches: list[Match],
        predicted: Floats,
    ) -> list[_Candidates]:
        """Align the patches near each match of each point, from their first and their last shape.

        All alignments are one batch: a lost point has few, and each costs little more than the
        calls that it takes.

        Args:
            memory: of the N points.
            wide: their wide patches.
            view: the frame to search.
            matches: of all points, in model pixels.
            predicted: [N, 2] (x, y) in pixels of the frame.

        Returns:
            The candidates of each match.

        """
        similarity = np.concatenate([found.similarity for found in matches])
        places = np.concatenate([found.points / view.scale for found in matches])
        turned = np.abs(memory.shapes - np.eye(2, dtype=np.float32)).max(axis=(1, 2)) > _TURNED
        from_first = np.flatnonzero(
            (similarity >= self._settings.min_similarity)
            & self._are_worth_a_try(memory, view, places, predicted)
        )
        from_last = from_first[turned[from_first % len(predicted)]]
        tried = np.concatenate([from_first, from_last])
        rows, started = tried % len(predicted), places[tried]
        query, shapes = select_rows(memory.query, rows), memory.shapes[rows]
        shapes[: len(from_first)] = place_unwarped(places[from_first]).shapes
        start = Placement(np.asarray(started, np.float32), shapes * view.patch_scale(query))
        placement, correlation = self.align_to_match(query, view, start, select_rows(wide, rows))
        returns = self._may_return(memory, view, placement.points, predicted, rows)
        score = np.full(len(similarity), -1, np.float32)
        last = memory.shapes * view.patch_scale(memory.query)
        best = Placement(np.tile(predicted, (len(matches), 1)), np.tile(last, (len(matches), 1, 1)))
        for part in (np.arange(len(from_first)), np.arange(len(from_first), len(tried))):
            better = part[returns[part] & (correlation[part] > score[tried[part]])]
            score[tried[better]] = correlation[better]
            assign_rows(best, tried[better], select_rows(placement, better))
        each = np.split(np.arange(len(similarity)), len(matches))
        return [_Candidates(select_rows(best, part), score[part]) for part in each]

    def _are_worth_a_try(
        self, memory: PointMemory, view: View, places: Floats, predicted: Floats
    ) -> Bools:
        """Return which places a point could return to and are not those of its earlier matches.

        Args:
            memory: of the N points.
            view: the frame.
            places: [M N, 2] (x, y) in pixels of the frame, of M matches of each point.
            predicted: [N, 2] (x, y) in pixels of the frame.

        """
        rows = np.arange(len(places)) % len(predicted)
        reach = self._reach(view, memory.query)[rows]
        worth = self._may_return(memory, view, places, predicted, rows, reach)
        of_points = places.reshape(-1, len(predicted), 2)
        distance = np.linalg.norm(of_points[:, None] - of_points, axis=3)
        first = (distance < _SAME * view.unit).argmax(axis=1).ravel()
        new = first == np.arange(len(of_points)).repeat(len(predicted))
        return np.asarray(worth & new, np.bool_)

    def _reach(self, view: View, query: Appearance) -> Floats:
        """Return how far from a match each point [N] may be found, in pixels of the frame."""
        size, settings = view.patch_size(query), self._settings
        of_wide = settings.max_wide_shift * size * query.wide_size
        return np.asarray(np.maximum(settings.max_shift * size, of_wide), np.float32)

    def align_to_match(
        self, query: Appearance, view: View, start: Placement, wide: Patches | None = None
    ) -> tuple[Placement, Floats]:
        """Align patches near matches, the wide one first.

        Args:
            query: of N points.
            view: the frame.
            start: [N] near patches at the matches.
            wide: the wide patches, if they are prepared already.

        Returns:
            The placement, and the mean correlation [N] of both patches; -1 where alignment failed.

        """
        settings, image = self._settings, view.image
        wide = self._wide.prepare(query.wide) if wide is None else wide
        size, to_wide = view.patch_size(query), query.wide_size[:, None, None]
        max_wide_shift = settings.max_wide_shift * size * query.wide_size
        start_wide = Placement(start.points, start.shapes * to_wide)
        aligned = self._wide.align(wide, image, start_wide, settings.wide_rounds)
        close = are_close(aligned.points, start.points, max_wide_shift)
        middle = Placement(aligned.points, aligned.shapes / to_wide).where(close, start)
        aligned = self._near.align(query.near, image, middle, self._patches.rounds)
        believed = are_close(aligned.points, start.points, self._reach(view, query))
        believed &= self._near.is_believable(aligned.shapes / view.patch_scale(query))
        placement = aligned.where(believed, start)
        placed_wide = Placement(placement.points, placement.shapes * to_wide)
        of_near = self._near.correlate(query.near, image, placement)
        of_wide = self._wide.correlate(wide, image, placed_wide)
        believed &= of_wide >= settings.min_wide_correlation
        inside = self._near.share_inside(query.near, image, placement)
        believed &= inside >= settings.min_near_inside
        inside = self._wide.share_inside(wide, image, placed_wide)
        believed &= inside >= settings.min_wide_inside
        return placement, np.where(believed, (of_near + of_wide) / 2, np.float32(-1))

    def _may_return(
        self,
        memory: PointMemory,
        view: View,
        places: Floats,
        predicted: Floats,
        rows: Indices,
        reach: Floats | float = 0.0,
    ) -> Bools:
        """Return whether points may return at places away from their predicted positions.

        Args:
            memory: of the N points.
            view: the frame.
            places: [M, 2] (x, y) in pixels of the frame.
            predicted: [N, 2] (x, y) in pixels of the frame.
            rows: [M] the point of each place.
            reach: [M] how far from its place each point may be, in pixels of the frame.

        """
        anywhere = memory.unplaced | (memory.missed_frames > self._settings.anywhere_after)
        near = are_close(places, predicted[rows], memory.radius[rows] * view.unit + reach)
        return np.asarray(near | anywhere[rows], np.bool_)


def _best_of(tried: list[_Candidates]) -> tuple[Placement, Floats]:
    """Return the best placement of each point, and its score [N]."""
    first = tried[0]
    best, score = select_rows(first.placement, np.arange(len(first.score))), first.score.copy()
    for candidates in tried[1:]:
        better = np.flatnonzero(candidates.score > score)
        assign_rows(best, better, select_rows(candidates.placement, better))
        score[better] = candidates.score[better]
    return best, score
