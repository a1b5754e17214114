"""Tracks points by optical flow, re-registered to the query patch; re-detects lost points.

From frame to frame optical flow is more accurate than any descriptor. Its weaknesses are left to
the query's appearance and to the point's motion. Aligning the query's patch removes the drift of
flow. A point that flow would lead far from its predicted position is lost and moves on at its last
velocity, so that it does not switch to a look-alike that crosses it; or with the camera, if that is
what moved it. A point without texture of its own is assumed to move with the camera, and is
invisible where its surroundings contradict. Descriptors and patches re-detect lost points, near
their predicted positions. All of this evidence together decides visibility.
"""

from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Bools, Floats, Grey, Indices
from vditrack.bundle.configuration import FlowTracking, Matching
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.appearance import AppearanceReader
from vditrack.points.array_tables import concatenate_rows, select_rows
from vditrack.points.base import PointTracker
from vditrack.points.camera_motion import estimate_motion
from vditrack.points.certain_matches import CertainSearch
from vditrack.points.optical_flow import resize_grey, track_forward_backward_at_levels
from vditrack.points.origin import Origin
from vditrack.points.patch_alignment import Placement, place_unwarped
from vditrack.points.point_memory import (
    Appearance,
    PointMemory,
    View,
    add_memory,
    are_close,
    compare_descriptors,
    lose,
    remember,
    remember_here,
    widen_descriptors,
)
from vditrack.points.point_motion import are_static, predict_steps, update_motion
from vditrack.points.pyramid import Pyramid
from vditrack.points.recovery import PointSearch
from vditrack.stage_timing import stage

_ROUNDING = 1e-3
"""Model pixels that rounding may move a position by."""
_BLOCK = 1024
"""Points that are tracked at a time; bounds the memory of intermediate results."""


@dataclass(frozen=True)
class _Flow:
    """Where optical flow leads points, and whether it is trusted."""

    points: Floats
    """[N, 2] (x, y) in pixels of the frame; the predicted position where flow is not trusted."""
    error: Floats
    """[N] forward-backward error in pixels at a width of 256."""
    trusted: Bools
    """[N]"""


class FlowTracker(PointTracker):
    """Tracks points in four stages: flow, patch alignment, recovery of lost points, visibility."""

    def __init__(self, grid: Grid, settings: Matching, flow_tracking: FlowTracking) -> None:
        """Start without points.

        Args:
            grid: the bundle's feature grid.
            settings: for the search by descriptors.
            flow_tracking: for everything else.

        """
        super().__init__(grid, history=1)
        self._settings, self._flow_tracking = settings, flow_tracking
        self._reader = AppearanceReader(grid, settings, flow_tracking)
        self._near, recovery = self._reader.near, flow_tracking.recovery
        self._search: PointSearch | None = None
        if recovery is not None:
            self._search = PointSearch(self._reader, settings, flow_tracking, recovery)
        self._certain: CertainSearch | None = None
        if self._search is not None and recovery is not None and flow_tracking.certain is not None:
            certain = flow_tracking.certain
            self._certain = CertainSearch(self._search, settings, recovery, certain)
        self._memory: PointMemory | None = None
        self._pyramid: Pyramid | None = None
        self.evidence: Floats = np.zeros((0, 4), np.float32)
        """[N, 4] of the last step: what `Visibility` weights, in its order."""
        self.decidable: Bools = np.zeros(0, np.bool_)
        """[N] whether the evidence of the last step decides about visibility; other points are
        invisible."""

    @property
    def undescribed(self) -> Bools:
        """See `PointTracker`."""
        return super().undescribed if self._memory is None else ~self._memory.described

    @property
    def textureless(self) -> Bools:
        """See `PointTracker`."""
        memory = self._memory
        return super().textureless if memory is None else memory.query.textureless.copy()

    @property
    def appearance(self) -> Appearance | None:
        """How the points looked at their queries; None before the first point."""
        return None if self._memory is None else self._memory.query

    def find_textureless(self, origin: Origin) -> Bools:
        """See `PointTracker`."""
        return self._reader.find_textureless(origin.points, Pyramid(origin.image))

    def _start_points(
        self, positions: Floats, features: FeatureMap | None, image: Grey, origin: Origin | None
    ) -> None:
        pyramid = self._pyramid_of(image)
        if origin is None:
            new = self._remember(positions, features, pyramid)
        else:
            new = self._remember(positions, features, Pyramid(origin.image), origin.points)
        first = 0 if self._memory is None else len(self._memory.lost_frames)
        self._memory = new if self._memory is None else add_memory(self._memory, new)
        if origin is not None:
            for block in _blocks(len(positions)):
                rows = first + np.arange(block.start, block.stop)
                self._place_by_origin(self._memory, rows, pyramid)

    def _place_by_origin(self, memory: PointMemory, rows: Indices, image: Pyramid) -> None:
        """Align the patches of new points, which are from an earlier image, in the last frame.

        Args:
            memory: of all points, updated in place.
            rows: [N] of the new points.
            image: the last frame.

        """
        settings, scale = self._flow_tracking, self._scale()
        block = select_rows(memory, rows)
        query, patch_scale = block.query, (block.query.scale / scale)[:, :, None]
        points = np.asarray(self._positions[rows] / scale, np.float32)
        start = Placement(points, block.shapes * patch_scale)
        aligned = self._near.align(query.near, image, start, settings.patches.rounds)
        before = self._near.correlate(query.near, image, start)
        after = self._near.correlate(query.near, image, aligned)
        size = np.asarray(np.sqrt(patch_scale.prod(axis=(1, 2))), np.float32)
        better = (after > settings.patches.min_correlation) & (after >= before)
        better &= are_close(aligned.points, points, settings.patches.max_shift * size)
        better &= self._near.is_believable(aligned.shapes / patch_scale) & ~query.textureless
        placement, correlation = aligned.where(better, start), np.where(better, after, before)
        self._positions[rows] = placement.points * scale
        memory.shapes[rows] = placement.shapes / patch_scale
        lost = (correlation <= settings.min_correlation) | ~image.contains(placement.points)
        self._hide(rows[lost])

    def _remember(
        self,
        positions: Floats,
        features: FeatureMap | None,
        image: Pyramid,
        points: Floats | None = None,
    ) -> PointMemory:
        """Return the memory of new points.

        Args:
            positions: [N, 2] (x, y) in model pixels, where their descriptors are read.
            features: of the last frame, if it has a feature map.
            image: the image that their patches are read from.
            points: [N, 2] (x, y) in pixels of that image; None if it is the last frame.

        """
        same = points is None
        if points is None:
            points = np.asarray(positions / self._scale(), np.float32)
        blocks = [
            remember(
                self._reader.read(points[rows], features, image, None if same else positions[rows]),
                place_unwarped(points[rows]).shapes,
                described=features is not None,
            )
            for rows in _blocks(len(points))
        ]
        return concatenate_rows(*blocks)

    def new_tracker(self) -> "FlowTracker":
        """Return a tracker of the same settings, without points, before the first frame."""
        return FlowTracker(self._grid, self._settings, self._flow_tracking)

    def add_copies(self, source: "FlowTracker", rows: Indices, points: Floats) -> None:
        """Add points of another tracker on the last frame, which are visible there.

        Args:
            source: a tracker of the same settings.
            rows: [N] of the points in that tracker.
            points: [N, 2] (x, y) in pixels of the last frame of this tracker.

        """
        if source._memory is None:
            return
        new = remember_here(select_rows(source._memory, rows))
        self._append(source.ids[rows], np.asarray(points * self._scale(), np.float32))
        self._memory = new if self._memory is None else add_memory(self._memory, new)

    def _pyramid_of(self, image: Grey) -> Pyramid:
        """Return the pyramid of an image, which is kept until there is a pyramid of another."""
        if self._pyramid is None or self._pyramid.level(0) is not image:
            self._pyramid = Pyramid(image)
        return self._pyramid

    def _keep_points(self, kept: Bools) -> None:
        if self._memory is not None:
            self._memory = select_rows(self._memory, kept)

    def _lose_points(self, rows: Indices) -> None:
        self._pyramid = None
        if self._memory is not None:
            lose(self._memory, rows)

    def _track(
        self,
        features: FeatureMap | None,
        before: Grey,
        image: Grey,
        start: Floats,
        intervals: float,
    ) -> None:
        memory, settings = self._memory, self._flow_tracking
        if memory is None:
            return
        if features is not None:
            memory = self._memory = widen_descriptors(memory, features.descriptors.shape[2])
        source = self._pyramid_of(resize_grey(before, image.shape))
        target = self._pyramid_of(image)
        with stage("camera"):
            camera = estimate_motion(source, target, settings.camera, settings.optical_flow)
        view = View(features, target, self._scale(), intervals, camera)
        count, self._positions = len(memory.lost_frames), self._positions.copy()
        self.evidence = np.zeros((count, 4), np.float32)
        self.decidable = np.zeros(count, np.bool_)
        self.confidence = np.zeros(count, np.float32)
        self.forward_backward_error = np.zeros(count, np.float32)
        for rows in _blocks(count):
            self._track_block(select_rows(memory, rows), rows, source, view, start[rows])
        self._visible = self.confidence >= 0.5
        if not settings.remember_query and features is not None:
            new = self._remember(self._positions, features, target)
            self._memory = replace(memory, query=new.query, template=new.template)

    def _track_block(
        self, memory: PointMemory, rows: slice, before: Pyramid, view: View, start: Floats
    ) -> None:
        """Track N points into a frame.

        Args:
            memory: of the points, updated in place.
            rows: of the points in this tracker's arrays.
            before: grey levels of the frame before, in the size of this frame.
            view: this frame.
            start: [N, 2] in model pixels, where searches begin.

        """
        settings, image = self._flow_tracking, view.image
        origin = np.asarray(self._positions[rows] / view.scale, np.float32)
        # Points that were carried through dropped frames are where they were predicted to be.
        carried = ~are_close(start, self._positions[rows], _ROUNDING)
        start = np.asarray(start / view.scale, np.float32)
        static = are_static(memory, view, origin, settings.camera)
        with stage("flow"):
            flow = self._track_by_flow(memory, before, view, origin, start, carried, static)
        with stage("patches"):
            placement, correlation = self._align_to_query(memory, view, flow)
        certain = self._certain
        compared = None if certain is None else certain.compare(memory, view, placement.points)
        tracked = (memory.lost_frames == 0) & flow.trusted
        tracked &= (correlation > settings.min_correlation) & image.contains(placement.points)
        # Flow sticks to the border where a point leaves across it.
        tracked &= image.contains(origin + predict_steps(memory, view, origin, static))
        if self._search is not None:
            confirmed = self._search.are_confirmed(memory, view, placement, correlation)
            tracked |= confirmed & flow.trusted
        update_motion(memory, view, placement, origin, static, tracked, settings)
        if view.features is not None:
            with stage("recovery"):
                if certain is not None and compared is not None:
                    certain.place(memory, view, compared, placement)
                if self._search is not None:
                    self._search.recover(memory, view, placement)
            self._reader.describe_new(memory, view, placement.points)
        with stage("visibility"):
            self._update_visibility(memory, rows, view, placement, flow.error)
        if certain is not None and compared is not None:
            seen = tracked & (self.confidence[rows] >= 0.5)
            certain.remember_rivals(memory, compared, seen)
        memory.shapes[:] = placement.shapes / view.patch_scale(memory.query)

    def _track_by_flow(
        self,
        memory: PointMemory,
        before: Pyramid,
        view: View,
        origin: Floats,
        start: Floats,
        carried: Bools,
        static: Bools,
    ) -> _Flow:
        """Track points by optical flow, where it stays near their predicted positions."""
        settings, query = self._flow_tracking, memory.query
        by_camera = static & ((memory.lost_frames > 0) | ~memory.moving)
        step = predict_steps(memory, view, origin, by_camera)
        predicted = np.asarray(start + step * ~carried[:, None], np.float32)
        levels = view.patch_levels(query)
        tracked, error = track_forward_backward_at_levels(
            before, view.image, origin, start, levels, settings.optical_flow
        )
        error = np.asarray(error / view.unit, np.float32)
        limit = settings.max_departure * view.unit
        limit = limit + settings.max_departure_share * np.linalg.norm(step, axis=1)
        trusted = ~memory.moving | are_close(tracked, predicted, limit)
        with_camera = np.asarray(origin + view.camera.step(origin), np.float32)
        limit = settings.camera.static_departure * view.unit
        bound = static & memory.moving
        trusted &= ~bound | are_close(tracked, with_camera, limit)
        trusted &= error < settings.max_flow_error * np.maximum(1, 2.0**levels / view.unit)
        # Without texture of its own, a point goes with the camera.
        camera_error = np.float32(0 if view.camera.known else np.inf)
        error = np.where(query.textureless, camera_error, error)
        trusted = np.where(query.textureless, view.camera.known, trusted)
        tracked = np.where(query.textureless[:, None], with_camera, tracked)
        predicted = np.where(query.textureless[:, None], with_camera, predicted)
        return _Flow(np.where(trusted[:, None], tracked, predicted), error, trusted)

    def _align_to_query(
        self, memory: PointMemory, view: View, flow: _Flow
    ) -> tuple[Placement, Floats]:
        """Align the near patches where flow leads; where that fails, keep what flow says.

        A textureless point is corrected by a share of what alignment says, as a Kalman filter
        would: by the error of the camera's motion over that of the alignment.

        Returns:
            The placement, and the correlation [N] of each patch there.

        """
        settings, query = self._flow_tracking.patches, memory.query
        scale = view.patch_scale(query)
        start = Placement(flow.points, memory.shapes * scale)
        aligned = self._near.align(query.near, view.image, start, settings.rounds)
        before = self._near.correlate(query.near, view.image, start)
        after = self._near.correlate(query.near, view.image, aligned)
        better = flow.trusted & (after > settings.min_correlation) & (after >= before)
        shift = aligned.points - start.points
        better &= are_close(
            aligned.points, start.points, settings.max_shift * view.patch_size(query)
        )
        better &= self._near.is_believable(aligned.shapes / scale)
        placement, correlation = aligned.where(better, start), np.where(better, after, before)
        drift = self._flow_tracking.camera.step_error * (1 + memory.lost_frames)
        gain = np.where(query.textureless, np.minimum(1, drift / query.expected_error), 1)
        shift = np.where(better[:, None], shift, np.float32(0))
        placement.points[:] = start.points + gain[:, None] * shift
        limit = settings.max_surprise * query.expected_error * view.unit
        surprising = np.linalg.norm(shift, axis=1) > limit
        return placement, np.where(query.textureless & surprising, np.float32(-1), correlation)

    def _update_visibility(
        self,
        memory: PointMemory,
        rows: slice,
        view: View,
        placement: Placement,
        flow_error: Floats,
    ) -> None:
        """Set positions, and how likely each point is visible there; update visible templates."""
        settings, query = self._flow_tracking, memory.query
        self._positions[rows] = view.model_positions(placement.points)
        descriptors = None
        if view.features is not None:
            descriptors = view.describe(placement.points, self._settings.template_falloff)
            compare_descriptors(memory, descriptors, settings)
        correlation = self._near.correlate(query.near, view.image, placement)
        capped = np.minimum(flow_error, settings.flow_error_cap)
        evidence = np.stack([correlation, *memory.similarities.T, capped], axis=1)
        logits = settings.visibility.bias + evidence @ settings.visibility.of_evidence
        possible = view.image.contains(placement.points)
        possible &= ((memory.lost_frames == 0) | memory.shown) & ~memory.unplaced
        possible &= query.expected_error < settings.patches.max_textureless_error
        confidence = np.asarray(possible / (1 + np.exp(-logits)), np.float32)
        self.evidence[rows], self.confidence[rows] = evidence, confidence
        self.decidable[rows] = possible
        self.forward_backward_error[rows] = flow_error * view.unit * view.scale.max()
        if descriptors is not None:
            weight, seen = self._settings.template_update, confidence >= 0.5
            memory.template[seen] = (1 - weight) * memory.template[seen] + weight * descriptors[
                seen
            ]


def _blocks(count: int) -> list[slice]:
    """Return the rows of N points in blocks of bounded size; one empty block if N is 0."""
    return [slice(at, min(at + _BLOCK, count)) for at in range(0, max(1, count), _BLOCK)]
