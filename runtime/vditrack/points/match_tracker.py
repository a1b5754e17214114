"""Tracks points by descriptors alone, frame by frame (HeFT, arXiv 2512.04619, section 3).

Descriptors decide where a point is. Tracking it backward over the last frames decides whether it is
visible. Optical flow carries points through frames without a feature map, to where the next search
begins.
"""

from collections import deque
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Frame, Grey, Indices
from vditrack.bundle.configuration import LiveTracking, Matching
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.base import PointTracker
from vditrack.points.bridging import carry_points
from vditrack.points.descriptor_matching import match
from vditrack.points.forward_backward import backward_error
from vditrack.points.origin import Origin
from vditrack.stage_timing import stage


class MatchTracker(PointTracker):
    """Tracks points in three stages: match templates, check backward, update visible templates."""

    def __init__(self, grid: Grid, settings: Matching, bridging: LiveTracking) -> None:
        """Start without points.

        Args:
            grid: the bundle's feature grid.
            settings: of matching.
            bridging: of optical flow through frames without a feature map.

        """
        length = settings.horizon + 1
        super().__init__(grid, length)
        self._settings, self._bridging = settings, bridging
        self._gaps: deque[int] = deque(maxlen=length)
        """Frames since the map before, of each map."""
        self._frames, self._intervals = 0, 0.0
        """Frames, and usual frame intervals, since the last map."""
        self._described = np.zeros(0, np.bool_)
        self._age = np.zeros(0, np.int64)
        """[N] maps since the point was first described."""
        self._carried = np.zeros(0, np.bool_)
        """[N] whether optical flow has carried the point into each frame since the last map."""
        self._templates = np.zeros((0, 0), np.float32)
        self._trail = np.zeros((0, length, 2), np.float32)
        self._seen = np.zeros((0, length), np.bool_)
        self._was_lost = np.zeros(0, np.bool_)

    @property
    def undescribed(self) -> Bools:
        """See `PointTracker`."""
        return ~self._described

    def _start_points(
        self, positions: Floats, features: FeatureMap | None, image: Grey, origin: Origin | None
    ) -> None:
        count, length = len(positions), self._trail.shape[1]
        if features is None:
            templates = np.zeros((count, self._templates.shape[1]), np.float32)
        else:
            templates = features.sample(positions, self._settings.template_falloff)
        self._templates = np.concatenate([self._widened_templates(templates.shape[1]), templates])
        described = np.full(count, features is not None)
        self._described = np.concatenate([self._described, described])
        self._age = np.concatenate([self._age, np.zeros(count, np.int64)])
        self._carried = np.concatenate([self._carried, np.ones(count, np.bool_)])
        trail = np.repeat(positions[:, None], length, axis=1)
        self._trail = np.concatenate([self._trail, trail])
        self._seen = np.concatenate([self._seen, np.ones((count, length), np.bool_)])
        self._was_lost = np.concatenate([self._was_lost, np.zeros(count, np.bool_)])

    def _keep_points(self, kept: Bools) -> None:
        self._templates, self._was_lost = self._templates[kept], self._was_lost[kept]
        self._trail, self._seen = self._trail[kept], self._seen[kept]
        self._age, self._carried = self._age[kept], self._carried[kept]
        self._described = self._described[kept]

    def _lose_points(self, rows: Indices) -> None:
        self._seen[rows] = False
        self._was_lost[rows] = True

    def advance(
        self,
        features: FeatureMap | None,
        frame: Frame,
        intervals: float = 1.0,
        carried: Floats | None = None,
    ) -> None:
        """See `PointTracker`."""
        self._frames, self._intervals = self._frames + 1, self._intervals + intervals
        if features is not None:
            self._gaps.append(self._frames)
        super().advance(features, frame, intervals, carried)
        if features is not None:
            self._frames, self._intervals = 0, 0.0
            self._carried[:] = True

    def _track(
        self,
        features: FeatureMap | None,
        before: Grey,
        image: Grey,
        start: Floats,
        intervals: float,
    ) -> None:
        if features is None:
            self._bridge(before, image)
            return
        new = self._describe_new(features, start)
        # Where optical flow has led the search begins close by.
        since = np.where(self._carried, intervals, self._intervals)
        with stage("matching"):
            found = match(
                self._templates, features, start, self._seen[:, -1], self._settings, since
            )
        known = self._described & ~new
        self._positions = np.where(known[:, None], found.points, start)
        self._age = self._age + known
        self._trail[new] = start[new, None]
        self._trail = _append(self._trail, self._positions)
        self._seen = _append(self._seen, np.zeros(len(self.ids), np.bool_))
        with stage("consistency"):
            self.forward_backward_error = self._backward_error()
        self.forward_backward_error[new] = 0
        self.confidence = self._confidence(found.similarity) * self._described
        self._visible = self.confidence >= 0.5
        self._seen[:, -1] = self._visible
        self._was_lost |= ~self._visible
        with stage("templates"):
            self._update_templates(features)

    def _widened_templates(self, channels: int) -> Floats:
        """Return the templates [N, channels]; before the first map they have no channels."""
        if self._templates.shape[1] == channels:
            return self._templates
        return np.zeros((len(self._templates), channels), np.float32)

    def _bridge(self, before: Grey, image: Grey) -> None:
        """Carry the visible points into a frame without a map; hide those that flow loses."""
        rows, scale = np.flatnonzero(self._visible), self._scale()
        if not len(rows):
            return
        places = np.asarray(self._positions[rows] / scale, np.float32)
        with_texture = np.zeros(len(rows), np.bool_)
        with stage("flow"):
            places, held = carry_points(before, image, places, with_texture, self._bridging, None)
        self._positions[rows[held]] = places[held] * scale
        lost = rows[~held]
        self.confidence[lost] *= self._bridging.lost_confidence
        self._visible[lost] = self._carried[lost] = False

    def _describe_new(self, features: FeatureMap, start: Floats) -> Bools:
        """Read the templates of visible points that have none; return which they are [N]."""
        self._templates = self._widened_templates(features.descriptors.shape[2])
        new = ~self._described & self._visible
        self._templates[new] = features.sample(start[new], self._settings.template_falloff)
        self._described = self._described | new
        return new

    def _backward_error(self) -> Floats:
        # The maps of the last frames, as many as the horizon has.
        gaps = list(self._gaps)[: -len(self._maps) : -1]
        count = 1 + sum(frames <= self._settings.horizon for frames in accumulate(gaps))
        maps, steps = list(self._maps)[-count:], list(self._gaps)[-count:]
        trail, seen = self._trail[:, -count:], self._seen[:, -count:]
        return backward_error(maps, trail, seen, self._age, self._settings, steps)

    def _confidence(self, similarity: Floats) -> Floats:
        """Return the smaller of two confidences [N]; each is one half at its threshold."""
        settings = self._settings
        returning = np.isinf(self.forward_backward_error)
        threshold = np.where(returning, settings.recovery_threshold, settings.similarity_threshold)
        of_similarity = 0.5 ** ((1 - similarity) / (1 - threshold))
        of_distance = 0.5 ** (self.forward_backward_error / settings.visibility_threshold)
        confidence = np.where(returning, of_similarity, np.minimum(of_similarity, of_distance))
        return np.asarray(np.clip(confidence * self._inside(), 0, 1), np.float32)

    def _update_templates(self, features: FeatureMap) -> None:
        seen, weight = self._visible, self._settings.template_update
        if not self._settings.update_after_loss:
            # A wrong re-detection would otherwise enter the template for good.
            seen = seen & ~self._was_lost
        newest = features.sample(self._positions[seen], self._settings.template_falloff)
        self._templates[seen] = (1 - weight) * self._templates[seen] + weight * newest


def _append(history: NDArray, newest: NDArray) -> NDArray:  # type: ignore[type-arg]
    """Append the newest values [N, ...] to a history [N, K, ...] and drop its oldest."""
    return np.concatenate([history[:, 1:], newest[:, None]], axis=1)
