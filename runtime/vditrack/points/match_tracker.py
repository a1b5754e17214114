"""Tracks points by descriptors alone, frame by frame (HeFT, arXiv 2512.04619, section 3).

Descriptors decide where a point is. Tracking it backward over the last frames decides whether it is
visible.
"""

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Grey, Indices
from vditrack.bundle.configuration import Matching
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.base import PointTracker
from vditrack.points.descriptor_matching import match
from vditrack.points.forward_backward import backward_error
from vditrack.points.origin import Origin
from vditrack.stage_timing import stage


class MatchTracker(PointTracker):
    """Tracks points in three stages: match templates, check backward, update visible templates."""

    def __init__(self, grid: Grid, settings: Matching) -> None:
        """Start without points.

        Args:
            grid: the bundle's feature grid.
            settings: of matching.

        """
        length = settings.horizon + 1
        super().__init__(grid, length)
        self._settings = settings
        self._templates = np.zeros((0, 0), np.float32)
        self._trail = np.zeros((0, length, 2), np.float32)
        self._seen = np.zeros((0, length), np.bool_)
        self._was_lost = np.zeros(0, np.bool_)

    def _start_points(
        self, positions: Floats, features: FeatureMap, image: Grey, origin: Origin | None
    ) -> None:
        count, length = len(positions), self._trail.shape[1]
        templates = features.sample(positions, self._settings.template_falloff)
        self._templates = np.concatenate(
            [self._templates.reshape(-1, templates.shape[1]), templates]
        )
        trail = np.repeat(positions[:, None], length, axis=1)
        self._trail = np.concatenate([self._trail, trail])
        self._seen = np.concatenate([self._seen, np.ones((count, length), np.bool_)])
        self._was_lost = np.concatenate([self._was_lost, np.zeros(count, np.bool_)])

    def _keep_points(self, kept: Bools) -> None:
        self._templates, self._was_lost = self._templates[kept], self._was_lost[kept]
        self._trail, self._seen = self._trail[kept], self._seen[kept]

    def _lose_points(self, rows: Indices) -> None:
        self._seen[rows] = False
        self._was_lost[rows] = True

    def _track(
        self, features: FeatureMap, before: Grey, image: Grey, start: Floats, intervals: float
    ) -> None:
        with stage("matching"):
            found = match(
                self._templates, features, start, self._visible, self._settings, intervals
            )
        self._positions = found.points
        self._trail = _append(self._trail, self._positions)
        self._seen = _append(self._seen, np.zeros(len(self.ids), np.bool_))
        with stage("consistency"):
            self.forward_backward_error = self._backward_error()
        self.confidence = self._confidence(found.similarity)
        self._visible = self.confidence >= 0.5
        self._seen[:, -1] = self._visible
        self._was_lost |= ~self._visible
        with stage("templates"):
            self._update_templates(features)

    def _backward_error(self) -> Floats:
        frames = len(self._maps)
        trail, seen = self._trail[:, -frames:], self._seen[:, -frames:]
        return backward_error(self._maps, trail, seen, self.age, self._settings)

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
