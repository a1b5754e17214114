"""Tracks points by optical flow, re-registered to the query patch; re-detects lost points.

From frame to frame optical flow is more accurate than any descriptor. Its weaknesses are left to
the query's appearance and to the point's motion. Aligning the query's patch removes the drift of
flow. A point that flow would lead far from its predicted position is lost and moves on at its last
velocity, so that it does not switch to a look-alike that crosses it. Descriptors re-detect it, near
its predicted position at first and later anywhere. All of this evidence together decides
visibility.
"""

from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Bools, Floats, Grey
from vditrack.bundle.configuration import FlowTracking, Matching, Recovery
from vditrack.coordinates import Grid, pixel_unit
from vditrack.features.feature_map import FeatureMap
from vditrack.points.array_tables import assign_rows, concatenate_rows, select_rows
from vditrack.points.base import PointTracker
from vditrack.points.descriptor_matching import cosines, match
from vditrack.points.optical_flow import resize_grey, track_forward_backward
from vditrack.points.patch_alignment import (
    GreyFloats,
    PatchAligner,
    Patches,
    Placement,
    place_unwarped,
)
from vditrack.stage_timing import stage

_ROUNDING = 1e-3
"""Model pixels that rounding may move a position by."""


@dataclass(frozen=True)
class _Memory:
    """What is remembered of N points."""

    first_descriptor: Floats
    """[N, C] at the query; never updated."""
    template: Floats
    """[N, C] descriptors, updated while the points are visible."""
    near: Patches
    wide: Patches
    scale: Floats
    """[N, 2]: model pixels (x, y) for a pixel of the patches."""
    shapes: Floats
    """[N, 2, 2] of the patches when the points were last tracked; the identity at the query."""
    velocity: Floats
    """[N, 2] model pixels a frame."""
    moving: Bools
    """[N] whether the velocity is known yet."""
    lost_frames: Floats
    """[N] frames since flow last tracked the point; 0 while it does."""


@dataclass(frozen=True)
class _View:
    """The frame that points are tracked into."""

    features: FeatureMap
    image: GreyFloats
    scale: Floats
    """Model pixels (x, y) in a pixel."""
    intervals: float
    """Usual frame intervals since the frame before."""

    @property
    def unit(self) -> float:
        """Pixels that one pixel at a width of 256 is."""
        return pixel_unit(self.image.shape)

    def model_positions(self, points: Floats) -> Floats:
        """Return the model pixels of points [N, 2]."""
        return np.asarray(points * self.scale, np.float32)

    def contains(self, points: Floats) -> Bools:
        """Return which points [N, 2] are inside the frame."""
        within = (points >= 0) & (points < np.array(self.image.shape[::-1]))
        return np.asarray(within.all(axis=1), np.bool_)

    def patch_scale(self, memory: _Memory) -> Floats:
        """Return the pixels (x, y) of this frame in one of the patches', [N, 2, 1]."""
        return (memory.scale / self.scale)[:, :, None]


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
        patches, recovery = flow_tracking.patches, flow_tracking.recovery
        self._settings, self._flow_tracking = settings, flow_tracking
        self._near = PatchAligner(patches.radius, patches)
        wide_radius = patches.radius if recovery is None else recovery.wide_radius
        self._wide = PatchAligner(wide_radius, patches)
        self._memory: _Memory | None = None
        self.evidence: Floats = np.zeros((0, 4), np.float32)
        """[N, 4] of the last step: what `Visibility` weights, in its order."""

    def _start_points(self, positions: Floats, features: FeatureMap, image: Grey) -> None:
        new = self._remember(positions, features, image)
        self._memory = new if self._memory is None else concatenate_rows(self._memory, new)

    def _remember(self, positions: Floats, features: FeatureMap, image: Grey) -> _Memory:
        """Return the appearance of points at [N, 2], in model pixels, without motion."""
        floats, scale, count = image.astype(np.float32), self._scale(), len(positions)
        points = np.asarray(positions / scale, np.float32)
        descriptors = features.sample(positions, self._settings.template_falloff)
        return _Memory(
            first_descriptor=descriptors,
            template=descriptors.copy(),
            near=self._near.extract(floats, points),
            wide=self._wide.extract(floats, points),
            scale=np.repeat(scale[None], count, axis=0),
            shapes=place_unwarped(points).shapes,
            velocity=np.zeros((count, 2), np.float32),
            moving=np.zeros(count, np.bool_),
            lost_frames=np.zeros(count, np.float32),
        )

    def _keep_points(self, kept: Bools) -> None:
        if self._memory is not None:
            self._memory = select_rows(self._memory, kept)

    def _track(
        self, features: FeatureMap, before: Grey, image: Grey, start: Floats, intervals: float
    ) -> None:
        memory, settings = self._memory, self._flow_tracking
        if memory is None:
            return
        view = _View(features, image.astype(np.float32), self._scale(), intervals)
        with stage("flow"):
            flow = self._track_by_flow(memory, before, image, start, view)
        with stage("patches"):
            placement, correlation = self._align_to_query(memory, view, flow)
        tracked = (memory.lost_frames == 0) & flow.trusted
        tracked &= (correlation > settings.min_correlation) & view.contains(placement.points)
        memory.lost_frames[:] = np.where(tracked, 0, memory.lost_frames + intervals)
        self._update_velocity(memory, (placement.points * view.scale - self._positions) / intervals)
        if settings.recovery is not None:
            with stage("recovery"):
                self._recover(memory, view, placement, settings.recovery)
        with stage("visibility"):
            self._update_visibility(memory, view, placement, flow.error)
        memory.shapes[:] = placement.shapes / view.patch_scale(memory)
        if not settings.remember_query:
            self._memory = replace(
                self._remember(self._positions, features, image),
                velocity=memory.velocity,
                moving=memory.moving,
                lost_frames=memory.lost_frames,
            )

    def _track_by_flow(
        self, memory: _Memory, before: Grey, image: Grey, start: Floats, view: _View
    ) -> _Flow:
        """Track points by optical flow, where it stays near their predicted positions."""
        settings = self._flow_tracking
        origin = np.asarray(self._positions / view.scale, np.float32)
        guess = np.asarray(start / view.scale, np.float32)
        tracked, error = track_forward_backward(
            resize_grey(before, image.shape), image, origin, guess, settings.optical_flow
        )
        error = np.asarray(error / view.unit, np.float32)
        step = memory.velocity * view.intervals / view.scale
        # Points that were carried through dropped frames are where they were predicted to be.
        carried = ~_are_close(start, self._positions, _ROUNDING)
        predicted = np.asarray(guess + step * ~carried[:, None], np.float32)
        limit = settings.max_departure * view.unit
        limit = limit + settings.max_departure_share * np.linalg.norm(step, axis=1)
        as_predicted = ~memory.moving | _are_close(tracked, predicted, limit)
        trusted = as_predicted & (error < settings.max_flow_error)
        return _Flow(np.where(trusted[:, None], tracked, predicted), error, trusted)

    def _align_to_query(
        self, memory: _Memory, view: _View, flow: _Flow
    ) -> tuple[Placement, Floats]:
        """Align the near patches where flow leads; where that fails, keep what flow says.

        Returns:
            The placement, and the correlation [N] of each patch there.

        """
        settings = self._flow_tracking.patches
        start = Placement(flow.points, memory.shapes * view.patch_scale(memory))
        aligned = self._near.align(memory.near, view.image, start, settings.rounds)
        before = self._near.correlate(memory.near, view.image, start)
        after = self._near.correlate(memory.near, view.image, aligned)
        better = flow.trusted & (after > settings.min_correlation) & (after >= before)
        better &= _are_close(aligned.points, start.points, settings.max_shift)
        better &= self._near.is_believable(aligned.shapes / view.patch_scale(memory))
        return aligned.where(better, start), np.where(better, after, before)

    def _update_velocity(self, memory: _Memory, step: Floats) -> None:
        """Update velocities of tracked points from their steps [N, 2], in model pixels a frame."""
        settings, tracked = self._flow_tracking, memory.lost_frames == 0
        update = np.float32(settings.velocity_update)
        weight = np.where(memory.moving, update, np.float32(1))[:, None]
        newest = (1 - weight) * memory.velocity + weight * step
        slowed = settings.velocity_decay * memory.velocity
        memory.velocity[:] = np.where(tracked[:, None], newest, slowed)
        memory.moving[tracked] = True

    def _recover(
        self, memory: _Memory, view: _View, placement: Placement, settings: Recovery
    ) -> None:
        """Move lost points to where they are re-detected."""
        lost = np.flatnonzero(memory.lost_frames > 0)
        if not len(lost):
            return
        predicted = placement.points[lost]
        found, is_found = self._search(select_rows(memory, lost), view, predicted, settings)
        recovered = lost[is_found]
        departure = found.points[is_found] - placement.points[recovered]
        assign_rows(placement, recovered, select_rows(found, is_found))
        limit = settings.radius_growth * settings.anywhere_after * view.unit
        near = np.linalg.norm(departure, axis=1) < limit
        correction = departure * view.scale / memory.lost_frames[recovered, None]
        corrected = memory.velocity[recovered] + correction
        # A point that is found far away does not have the velocity it was predicted with.
        memory.velocity[recovered] = np.where(near[:, None], corrected, np.float32(0))
        memory.moving[recovered], memory.lost_frames[recovered] = near, 0

    def _search(
        self, memory: _Memory, view: _View, predicted: Floats, settings: Recovery
    ) -> tuple[Placement, Bools]:
        """Search for points by descriptor, then by patch.

        The template is searched for around the predicted positions [N, 2], the first descriptor in
        the whole frame.

        Returns:
            The best placement of each point, and which points [N] are found.

        """
        grid, count = self._grid, len(predicted)
        last_pixel = np.array([grid.width, grid.height], np.float32) - 1
        centre = np.clip(predicted * view.scale, 0, last_pixel)
        nearby, anywhere = np.ones(count, np.bool_), np.zeros(count, np.bool_)
        best = Placement(predicted.copy(), memory.shapes.copy())
        score = np.full(count, -1, np.float32)
        features, matching = view.features, self._settings
        for found in (
            match(memory.template, features, centre, nearby, matching, view.intervals),
            match(memory.first_descriptor, features, centre, anywhere, matching),
        ):
            similar = np.flatnonzero(found.similarity >= settings.min_similarity)
            if not len(similar):
                continue
            candidates = select_rows(memory, similar)
            points = found.points[similar] / view.scale
            for shapes in (place_unwarped(points).shapes, candidates.shapes):
                start = Placement(points, shapes * view.patch_scale(candidates))
                placement, correlation = self._align_to_match(candidates, view, start, settings)
                better = correlation > score[similar]
                better &= _may_return(
                    candidates, view, placement.points, predicted[similar], settings
                )
                score[similar[better]] = correlation[better]
                assign_rows(best, similar[better], select_rows(placement, better))
        descriptors = self._describe(view, best.points)
        is_found = (score >= settings.min_correlation) & view.contains(best.points)
        is_found &= cosines(memory.first_descriptor, descriptors) >= settings.min_similarity
        return best, is_found

    def _align_to_match(
        self, memory: _Memory, view: _View, start: Placement, settings: Recovery
    ) -> tuple[Placement, Floats]:
        """Align patches near matches, the wide one first.

        Returns:
            The placement, and the mean correlation [N] of both patches; -1 where alignment failed.

        """
        wide = self._wide.align(memory.wide, view.image, start, settings.wide_rounds)
        close = _are_close(wide.points, start.points, settings.max_wide_shift)
        rounds = self._flow_tracking.patches.rounds
        aligned = self._near.align(memory.near, view.image, wide.where(close, start), rounds)
        believed = _are_close(aligned.points, start.points, settings.max_shift)
        believed &= self._near.is_believable(aligned.shapes / view.patch_scale(memory))
        placement = aligned.where(believed, start)
        of_near = self._near.correlate(memory.near, view.image, placement)
        of_wide = self._wide.correlate(memory.wide, view.image, placement)
        return placement, np.where(believed, (of_near + of_wide) / 2, np.float32(-1))

    def _update_visibility(
        self, memory: _Memory, view: _View, placement: Placement, flow_error: Floats
    ) -> None:
        """Set positions, and how likely each point is visible there; update visible templates."""
        settings = self._flow_tracking
        self._positions = view.model_positions(placement.points)
        descriptors = self._describe(view, placement.points)
        correlation = self._near.correlate(memory.near, view.image, placement)
        first_similarity = cosines(memory.first_descriptor, descriptors)
        similarities = first_similarity, cosines(memory.template, descriptors)
        capped = np.minimum(flow_error, settings.flow_error_cap)
        self.evidence = np.stack([correlation, *similarities, capped], axis=1)
        logits = settings.visibility.bias + self.evidence @ settings.visibility.of_evidence
        confidence = self._inside() / (1 + np.exp(-logits))
        if settings.recovery is None:
            confidence = np.where(memory.lost_frames == 0, confidence, 0)
        self.confidence = np.asarray(confidence, np.float32)
        self._visible = self.confidence >= 0.5
        in_model_pixels = flow_error * view.unit * view.scale.max()
        self.forward_backward_error = np.asarray(in_model_pixels, np.float32)
        weight, seen = self._settings.template_update, self._visible
        memory.template[seen] = (1 - weight) * memory.template[seen] + weight * descriptors[seen]

    def _describe(self, view: _View, points: Floats) -> Floats:
        """Return the descriptors [N, C] at points [N, 2] of a frame, in its pixels."""
        falloff = self._settings.template_falloff
        return view.features.sample(view.model_positions(points), falloff)


def _may_return(
    memory: _Memory, view: _View, points: Floats, predicted: Floats, settings: Recovery
) -> Bools:
    """Return which lost points may return at points [N, 2], away from their predicted positions."""
    limit = view.unit * (settings.radius + settings.radius_growth * memory.lost_frames)
    return _are_close(points, predicted, limit) | (memory.lost_frames > settings.anywhere_after)


def _are_close(points: Floats, others: Floats, limit: Floats | float) -> Bools:
    """Return which points [N, 2] are nearer to the others than a limit; not where not finite."""
    return np.asarray(np.linalg.norm(points - others, axis=1) < limit, np.bool_)
