"""Points that stay on the pixels they were asked for on: flow, first patches, and the features.

From frame to frame optical flow is closer than any descriptor; what it cannot do is left to how the
point looked at first and to how it moved. The first patch takes back the flow's drift. A point that
flow would throw off its course is lost, and goes on at its last pace: so it does not change over to
a look-alike that crosses it. The descriptors find it again, near its course at first and later
anywhere, and all of them together tell whether it is seen.
"""

from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Floats, Grey, Ints
from vditrack.bundle.manifest import Holding, Matching
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.array_tables import chosen, joined
from vditrack.points.base import PointTracker
from vditrack.points.descriptor_matching import cosines, match
from vditrack.points.optical_flow import at_size, flow_there_and_back
from vditrack.points.patch_alignment import (
    Patches,
    PatchLens,
    Picture,
    Placed,
    believable,
    unturned,
)
from vditrack.stage_timing import stage

# Pixels are those of a frame 256 wide, but where patches move: these have pixels of the frame. All
# were chosen on rendered clips.
_NEAR, _WIDE = PatchLens(5), PatchLens(14)
"""What holds a point, and what finds it again from further away."""
_ROUNDS, _WIDE_ROUNDS = 8, 6
_CORRECTS, _PULLS, _RECOVERS = 3.0, 8.0, 10.0
"""How far from the flow, and from a match, the near, the wide and both patches may move."""
_LEAST_CORRELATION = 0.7
"""Of a first patch that corrects the flow."""
_LOST_CORRELATION = 0.3
_LOST_DISTANCE = 2.0
"""Pixels, there and back, from which on flow has lost a point."""
_OFF_COURSE, _OFF_PACE = 5.0, 0.3
"""Pixels, and shares of its pace, by which flow may leave a point's course."""
_NEWEST_PACE, _SLOWING = 0.7, 0.95
"""Weight of the newest step in the pace, and what a frame leaves of it while a point is lost."""
_STRAYS, _STRAYS_MORE, _ANYWHERE_AFTER = 8.0, 3.0, 8.0
"""Pixels off its course within which a lost point may return, more for each frame that it is lost;
after so many frames anywhere."""
_FARTHEST = 10.0
"""Pixels there and back, beyond which it makes no difference how far."""
_SAME_PLACE = 1e-3
"""Model pixels: what rounding may do."""


@dataclass(frozen=True)
class _Memory:
    """What is remembered of N points."""

    first: Floats
    """[N, C] descriptors where they were asked for; never forgotten."""
    template: Floats
    """[N, C] descriptors, renewed while the points are seen."""
    near: Patches
    wide: Patches
    scale: Floats
    """[N, 2]: model pixels (x, y) for a pixel of the patches."""
    shapes: Floats
    """[N, 2, 2] as last seen; the identity is the patches' own."""
    pace: Floats
    """[N, 2] model pixels a frame."""
    paced: Bools
    """[N] whether the pace is known yet."""
    lost: Floats
    """[N] frames since the point was held."""


@dataclass(frozen=True)
class _View:
    """The frame that points are sought in."""

    features: FeatureMap
    picture: Picture
    scale: Floats
    """Model pixels (x, y) a pixel."""
    reach: float
    """Frames since the one before."""

    def describe(self, points: Floats) -> Floats:
        return self.features.sample(np.asarray(points * self.scale, np.float32))

    def inside(self, points: Floats) -> Bools:
        within = (points >= 0) & (points < np.array(self.picture.shape[::-1]))
        return np.asarray(within.all(axis=1), np.bool_)

    @property
    def unit(self) -> float:
        """A pixel at a width of 256."""
        return float(max(self.picture.shape) / 256)


@dataclass(frozen=True)
class _Flow:
    """Where flow leads points, and whether to go along."""

    points: Floats
    """[N, 2] (x, y) in pixels of the frame; the point's course where flow is not followed."""
    distance: Floats
    """[N] pixels that the way there and back misses the start by."""
    followed: Bools
    """[N]"""


class FlowTracker(PointTracker):
    """A step goes one way: flow, first patch, seek what is lost, judge what is seen."""

    def __init__(self, grid: Grid, settings: Matching, holding: Holding) -> None:
        super().__init__(grid, history=1)
        self._settings, self._holding = settings, holding
        self._memory: _Memory | None = None
        self.evidence: Floats = np.zeros((0, 4), np.float32)
        """[N, 4] of the last step: what the weights of `Visibility` are for, in its order."""

    def _begin(self, places: Floats, features: FeatureMap, image: Grey) -> None:
        picture, scale, count = image.astype(np.float32), self._scale(), len(places)
        points = np.asarray(places / scale, np.float32)
        descriptors = features.sample(places)
        new = _Memory(
            first=descriptors,
            template=descriptors.copy(),
            near=_NEAR.take(picture, points),
            wide=_WIDE.take(picture, points),
            scale=np.repeat(scale[None], count, axis=0),
            shapes=unturned(points).shapes,
            pace=np.zeros((count, 2), np.float32),
            paced=np.zeros(count, np.bool_),
            lost=np.zeros(count, np.float32),
        )
        self._memory = new if self._memory is None else joined(self._memory, new)

    def _forget(self, kept: Bools) -> None:
        if self._memory is not None:
            self._memory = chosen(self._memory, kept)

    def _step(
        self, features: FeatureMap, before: Grey, image: Grey, start: Floats, reach: float
    ) -> None:
        memory = self._memory
        if memory is None:
            return
        view = _View(features, image.astype(np.float32), self._scale(), reach)
        with stage("flow"):
            flow = self._flow(memory, before, image, start, view)
        with stage("patches"):
            placed, correlation = _corrected(memory, view, flow)
        held = (memory.lost == 0) & flow.followed & (correlation > _LOST_CORRELATION)
        held &= view.inside(placed.points)
        memory.lost[:] = np.where(held, 0, memory.lost + reach)
        _keep_pace(memory, (placed.points * view.scale - self._places) / reach)
        with stage("recovery"):
            self._recover(memory, view, placed)
        with stage("visibility"):
            self._judge(memory, view, placed, flow.distance)
        memory.shapes[:] = placed.shapes / _of_frame(memory, view)

    def _flow(
        self, memory: _Memory, before: Grey, image: Grey, start: Floats, view: _View
    ) -> _Flow:
        """Follow the pixels, where they keep to the point's course."""
        origin = np.asarray(self._places / view.scale, np.float32)
        guess = np.asarray(start / view.scale, np.float32)
        there, missed = flow_there_and_back(at_size(before, image.shape), image, origin, guess)
        distance = np.asarray(missed / view.unit, np.float32)
        step = memory.pace * view.reach / view.scale
        # Points that were carried through the frames between are where their course has led.
        carried = ~_within(start, self._places, _SAME_PLACE)
        course = np.asarray(guess + step * ~carried[:, None], np.float32)
        limit = _OFF_COURSE * view.unit + _OFF_PACE * np.linalg.norm(step, axis=1)
        on_course = ~memory.paced | _within(there, course, limit)
        followed = on_course & (distance < _LOST_DISTANCE)
        return _Flow(np.where(followed[:, None], there, course), distance, followed)

    def _recover(self, memory: _Memory, view: _View, placed: Placed) -> None:
        """Take lost points up again where they are found."""
        lost = np.flatnonzero(memory.lost > 0)
        if not len(lost):
            return
        found, returned = self._sought(chosen(memory, lost), view, placed.points[lost])
        back = lost[returned]
        strayed = found.points[returned] - placed.points[back]
        _put(placed, back, chosen(found, returned))
        near = np.linalg.norm(strayed, axis=1) < _STRAYS_MORE * _ANYWHERE_AFTER * view.unit
        mended = memory.pace[back] + strayed * view.scale / memory.lost[back, None]
        # From elsewhere, the old course is not the new one.
        memory.pace[back] = np.where(near[:, None], mended, np.float32(0))
        memory.paced[back], memory.lost[back] = near, 0

    def _sought(self, memory: _Memory, view: _View, course: Floats) -> tuple[Placed, Bools]:
        """Seek points by their descriptors, then by their patches.

        By how they looked last around their course [N, 2], and by how they looked first anywhere.

        Returns:
            Where they are, and which [N] are found.

        """
        grid, settings, count = self._grid, self._settings, len(course)
        last_pixel = np.array([grid.width, grid.height], np.float32) - 1
        middle = np.clip(course * view.scale, 0, last_pixel)
        nearby, anywhere = np.ones(count, np.bool_), np.zeros(count, np.bool_)
        best, score = Placed(course.copy(), memory.shapes.copy()), np.full(count, -1, np.float32)
        for found in (
            match(memory.template, view.features, middle, nearby, settings, view.reach),
            match(memory.first, view.features, middle, anywhere, settings),
        ):
            likely = np.flatnonzero(found.similarity >= self._holding.recovery_similarity)
            if not len(likely):
                continue
            these, points = chosen(memory, likely), found.points[likely] / view.scale
            for shapes in (unturned(points).shapes, these.shapes):
                start = Placed(points, shapes * _of_frame(these, view))
                placed, correlation = _pulled(these, view, start)
                allowed = _may_return(these, view, placed.points, course[likely])
                better = allowed & (correlation > score[likely])
                score[likely[better]] = correlation[better]
                _put(best, likely[better], chosen(placed, better))
        similarity = cosines(memory.first, view.describe(best.points))
        returned = (score >= self._holding.recovery_correlation) & view.inside(best.points)
        return best, returned & (similarity >= self._holding.recovery_similarity)

    def _judge(self, memory: _Memory, view: _View, placed: Placed, distance: Floats) -> None:
        """Take over where the points are, and how likely each is seen there."""
        self._places = np.asarray(placed.points * view.scale, np.float32)
        now, weights = view.features.sample(self._places), self._holding.visibility
        correlation = _NEAR.correlation(memory.near, view.picture, placed)
        similarities = cosines(memory.first, now), cosines(memory.template, now)
        missed = np.minimum(distance, _FARTHEST)
        self.evidence = np.stack([correlation, *similarities, missed], axis=1)
        likely = weights.bias + self.evidence @ weights.of_evidence
        self.confidence = np.asarray(self._inside() / (1 + np.exp(-likely)), np.float32)
        self._visible = self.confidence >= 0.5
        self.forward_backward_error = np.asarray(
            distance * view.unit * view.scale.max(), np.float32
        )
        weight, seen = self._settings.template_update, self._visible
        memory.template[seen] = (1 - weight) * memory.template[seen] + weight * now[seen]


def _corrected(memory: _Memory, view: _View, flow: _Flow) -> tuple[Placed, Floats]:
    """Align first patches near where flow leads; where that fails, the flow's answer stays.

    Returns:
        Where they are, and the correlation [N] of each patch there.

    """
    start = Placed(flow.points, memory.shapes * _of_frame(memory, view))
    aligned = _NEAR.align(memory.near, view.picture, start, _ROUNDS)
    before = _NEAR.correlation(memory.near, view.picture, start)
    after = _NEAR.correlation(memory.near, view.picture, aligned)
    better = flow.followed & (after > _LEAST_CORRELATION) & (after >= before)
    better &= _within(aligned.points, start.points, _CORRECTS)
    better &= believable(aligned.shapes / _of_frame(memory, view))
    return aligned.where(better, start), np.where(better, after, before)


def _pulled(memory: _Memory, view: _View, start: Placed) -> tuple[Placed, Floats]:
    """Align patches near matches, the wide one first.

    Returns:
        Where they are, and the mean correlation [N] of both patches; -1 where that is no place.

    """
    wide = _WIDE.align(memory.wide, view.picture, start, _WIDE_ROUNDS)
    pulled = wide.where(_within(wide.points, start.points, _PULLS), start)
    aligned = _NEAR.align(memory.near, view.picture, pulled, _ROUNDS)
    believed = _within(aligned.points, start.points, _RECOVERS)
    believed &= believable(aligned.shapes / _of_frame(memory, view))
    placed = aligned.where(believed, start)
    of_near = _NEAR.correlation(memory.near, view.picture, placed)
    of_wide = _WIDE.correlation(memory.wide, view.picture, placed)
    return placed, np.where(believed, (of_near + of_wide) / 2, np.float32(-1))


def _may_return(memory: _Memory, view: _View, points: Floats, course: Floats) -> Bools:
    """Whether lost points may be taken up again at points [N, 2], away from their course."""
    limit = view.unit * (_STRAYS + _STRAYS_MORE * memory.lost)
    return _within(points, course, limit) | (memory.lost > _ANYWHERE_AFTER)


def _keep_pace(memory: _Memory, step: Floats) -> None:
    """Learn the pace of points that are held from their steps [N, 2], in model pixels a frame."""
    held = memory.lost == 0
    weight = np.where(memory.paced, np.float32(_NEWEST_PACE), np.float32(1))[:, None]
    newest = (1 - weight) * memory.pace + weight * step
    memory.pace[:] = np.where(held[:, None], newest, _SLOWING * memory.pace)
    memory.paced[held] = True


def _within(points: Floats, others: Floats, limit: Floats | float) -> Bools:
    """Whether points [N, 2] are nearer than a limit; those that are not finite are not."""
    return np.asarray(np.linalg.norm(points - others, axis=1) < limit, np.bool_)


def _of_frame(memory: _Memory, view: _View) -> Floats:
    """Pixels (x, y) of this frame for one of the patches', [N, 2, 1]."""
    return (memory.scale / view.scale)[:, :, None]


def _put(placed: Placed, rows: Ints, other: Placed) -> None:
    placed.points[rows], placed.shapes[rows] = other.points, other.shapes
