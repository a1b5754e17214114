"""Places of lost points that descriptors alone show, whatever their patches say.

A surface that turns or deforms no longer looks like its patch, but its descriptor may still be like
no other. A match is certain if its similarity exceeds, by a margin, that of all other places of the
frame, and that of the point's rivals in the frames before: the places that resembled the point
while it was seen elsewhere. So a point does not go to a look-alike that was there before.
"""

import numpy as np

from vditrack.arrays import Bools, Floats
from vditrack.bundle.configuration import Matching
from vditrack.bundle.redetection import CertainMatches, Recovery
from vditrack.points.array_tables import assign_rows, select_rows
from vditrack.points.descriptor_matching import (
    Comparison,
    compare_with_all,
    refine_best,
)
from vditrack.points.patch_alignment import Placement
from vditrack.points.point_memory import PointMemory, View
from vditrack.points.point_motion import restart_motion
from vditrack.points.recovery import PointSearch
from vditrack.stage_timing import stage

_SPREAD = 2
"""Cells over which the descriptor of one place is spread: it is interpolated between cells."""


class CertainSearch:
    """Places points at certain matches."""

    def __init__(
        self,
        search: PointSearch,
        matching: Matching,
        recovery: Recovery,
        settings: CertainMatches,
    ) -> None:
        """Prepare searches.

        Args:
            search: aligns patches near matches.
            matching: of the search by descriptors.
            recovery: of lost points.
            settings: which matches are certain.

        """
        self._search, self._matching = search, matching
        self._recovery, self._settings = recovery, settings

    def compare(self, memory: PointMemory, view: View, points: Floats) -> Comparison | None:
        """Compare points with a frame by their descriptors.

        Args:
            memory: of N points.
            view: the frame.
            points: [N, 2] (x, y) in pixels of the frame, where flow leads, or where a lost point is
                expected.

        Returns:
            None if the frame has no feature map, or there is no point.

        """
        if view.features is None or not len(points):
            return None
        with stage("recovery"):
            return self._compare(memory, view, points)

    def _compare(self, memory: PointMemory, view: View, points: Floats) -> Comparison:
        templates = _normalise(memory.query.descriptor) + _normalise(memory.template)
        apart = self._rival_distance(view) * float(view.scale.max())
        return compare_with_all(templates, view.feature_map, view.model_positions(points), apart)

    def _rival_distance(self, view: View) -> float:
        """Return the distance, in pixels of the frame, from which on a match is elsewhere."""
        cells = _SPREAD * view.feature_map.grid.stride / float(view.scale.max())
        return max(self._recovery.rival_distance * view.unit, cells)

    def place(
        self, memory: PointMemory, view: View, compared: Comparison, placement: Placement
    ) -> None:
        """Move lost points to their certain matches, in place.

        Args:
            memory: of N points.
            view: the frame.
            compared: of `compare`.
            placement: where flow leads, or where a lost point is expected.

        """
        settings, recovery, found = self._settings, self._recovery, compared
        best = np.asarray(found.best / view.scale, np.float32)
        certain = found.similarity > memory.rival + settings.min_distinction
        certain &= (found.margin > settings.min_margin) & memory.described
        certain &= (memory.lost_frames > 0) & ~memory.query.textureless
        certain &= self._search.may_reappear(memory, view, best, placement.points)
        rows = np.flatnonzero(certain)
        if not len(rows):
            return
        at = refine_best(found, rows, view.feature_map, self._matching)
        points = np.asarray(at.points / view.scale, np.float32)
        part = select_rows(memory, rows)
        start = Placement(points, part.shapes * view.patch_scale(part.query))
        aligned, correlation = self._search.align_to_match(part.query, view, start)
        final = aligned.where(correlation > recovery.min_correlation, start)
        inside = view.image.contains(final.points)
        rows = rows[inside]
        assign_rows(placement, rows, select_rows(final, inside))
        restart_motion(memory, rows)

    def remember_rivals(self, memory: PointMemory, compared: Comparison, tracked: Bools) -> None:
        """Remember how similar other places of the frame are to points that are seen, in place.

        Args:
            memory: of N points.
            compared: of `compare`.
            tracked: [N] which points are where they were compared, and visible there.

        """
        faded = memory.rival - self._settings.forgetting
        newest = np.maximum(faded, compared.rival)
        memory.rival[:] = np.where(tracked & memory.described, newest, memory.rival)


def _normalise(descriptors: Floats) -> Floats:
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.asarray(descriptors / np.maximum(lengths, 1e-12), np.float32)
