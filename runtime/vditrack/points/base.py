"""The base class of point trackers: the points of a stream or clip, and what all trackers share."""

from abc import ABC, abstractmethod
from collections import deque

import numpy as np

from vditrack.arrays import Bools, Floats, Frame, Grey, Indices, Ints
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.features.feature_map import FeatureMap
from vditrack.inference.blas_threads import limit_blas_threads
from vditrack.input_checks.arrays import check_points
from vditrack.points.optical_flow import grey_levels
from vditrack.points.origin import Origin
from vditrack.stage_timing import stage


class PointTracker(ABC):
    """N points that are tracked from frame to frame, with bounded memory.

    Positions are kept in model pixels, so a change of the frames' size moves no point.

    Attributes:
        ids: [N].
        age: [N] frames since the point was added.
        confidence: [N] in [0, 1]; at least 0.5 exactly where the point is visible.
        forward_backward_error: [N] in model pixels; inf where unknown.

    """

    def __init__(self, grid: Grid, history: int) -> None:
        """Start without points.

        Args:
            grid: the bundle's feature grid.
            history: feature maps that are kept.

        """
        self._grid = grid
        self._image: Grey | None = None
        self._features: FeatureMap | None = None
        self.ids: Ints = np.zeros(0, np.int64)
        self.age: Ints = np.zeros(0, np.int64)
        self.confidence: Floats = np.zeros(0, np.float32)
        self.forward_backward_error: Floats = np.zeros(0, np.float32)
        self._maps: deque[FeatureMap] = deque(maxlen=history)
        self._positions: Floats = np.zeros((0, 2), np.float32)
        self._visible: Bools = np.zeros(0, np.bool_)

    @property
    def points(self) -> Floats:
        """Positions [N, 2] (x, y) in pixels of the last frame."""
        return np.asarray(self._positions / self._scale(), np.float32)

    @property
    def visible(self) -> Bools:
        """Visibility [N] in the last frame."""
        return self._visible.copy()

    @property
    def undescribed(self) -> Bools:
        """Which points [N] have no descriptor yet, because no frame since `add` had a map."""
        return np.zeros(len(self.ids), np.bool_)

    @property
    def textureless(self) -> Bools:
        """Which points [N] have too little texture around them to be located by it alone."""
        return np.zeros(len(self.ids), np.bool_)

    def find_textureless(self, origin: Origin) -> Bools:
        """Return which points [N] of an image have too little texture to be located by it alone.

        This may be called while another thread uses the tracker.
        """
        return np.zeros(len(origin.points), np.bool_)

    def add(self, ids: Ints, points: Floats, origin: Origin | None = None) -> None:
        """Add points on the last frame.

        If that frame has no feature map, a point's descriptor is read in the next frame that has
        one, where the point is then, if it is visible there.

        Args:
            ids: [N].
            points: [N, 2] (x, y) in pixels of that frame.
            origin: an earlier image that the points were marked on, if they were: they look as in
                that image. Points that do not look so in the last frame are added as lost.

        Raises:
            InputError: There is no frame yet, or a point is not a finite position inside it.

        """
        if self._image is None:
            raise InputError("points were added before the first frame. Push a frame first.")
        check_points(points, self._image.shape)
        positions = np.asarray(points * self._scale(), np.float32)
        self._append(ids, positions)
        if len(points):
            with limit_blas_threads():
                self._start_points(positions, self._features, self._image, origin)

    def _append(self, ids: Ints, positions: Floats) -> None:
        """Append N visible points at positions [N, 2] in model pixels."""
        count = len(ids)
        self.ids = np.concatenate([self.ids, ids])
        self.age = np.concatenate([self.age, np.zeros(count, np.int64)])
        self.confidence = np.concatenate([self.confidence, np.ones(count, np.float32)])
        self.forward_backward_error = np.concatenate(
            [self.forward_backward_error, np.zeros(count, np.float32)]
        )
        self._positions = np.concatenate([self._positions, positions])
        self._visible = np.concatenate([self._visible, np.ones(count, np.bool_)])

    def keep(self, kept: Bools) -> None:
        """Drop the points where the mask [N] is false."""
        self.ids, self.age = self.ids[kept], self.age[kept]
        self.confidence = self.confidence[kept]
        self.forward_backward_error = self.forward_backward_error[kept]
        self._positions, self._visible = self._positions[kept], self._visible[kept]
        self._keep_points(kept)

    def restart(self, kept: Bools) -> None:
        """Forget all frames, drop the points where the mask [N] is false, and lose the others.

        A lost point is invisible until it is found in a later frame. What is expected of its
        position is forgotten too.
        """
        self.keep(kept)
        self._maps.clear()
        self._image = self._features = None
        self._hide(np.arange(len(self.ids)))

    def advance(
        self,
        features: FeatureMap | None,
        frame: Frame,
        intervals: float = 1.0,
        carried: Floats | None = None,
    ) -> None:
        """Track all points into the next frame.

        Args:
            features: the frame's feature map; None if it has none, because its latent is not
                complete. Points are then tracked by optical flow, and are not searched for.
            frame: uint8 [H, W, 3] RGB, or its grey levels [H, W]; its size may differ from that of
                the frame before.
            intervals: usual frame intervals since the frame before; more than 1 after dropped
                frames, which makes searches so many times wider.
            carried: [N, 2] (x, y) in pixels of this frame, where optical flow through the dropped
                frames has carried the points. Searches begin there; by default, at the last
                positions.

        """
        with stage("grey"):
            image = grey_levels(frame)
        self._features = features
        if features is not None:
            self._maps.append(features)
        before, self._image = self._image, image
        if before is not None and len(self.ids):
            start = self._positions if carried is None else carried * self._scale()
            self.age = self.age + 1
            with limit_blas_threads():
                self._track(features, before, image, start, intervals)

    def _hide(self, rows: Indices) -> None:
        """Make points invisible, and forget where they are."""
        self.confidence[rows] = 0
        self.forward_backward_error[rows] = np.inf
        self._visible[rows] = False
        self._lose_points(rows)

    @abstractmethod
    def _start_points(
        self, positions: Floats, features: FeatureMap | None, image: Grey, origin: Origin | None
    ) -> None:
        """Remember how new points look, which are already the last N of the points.

        Args:
            positions: [N, 2] in model pixels of the last frame.
            features: of the last frame, if it has a feature map.
            image: grey levels of the last frame.
            origin: the earlier image that they were marked on, if they were.

        """

    @abstractmethod
    def _keep_points(self, kept: Bools) -> None:
        """Drop what is remembered of points where the mask [N] is false."""

    @abstractmethod
    def _lose_points(self, rows: Indices) -> None:
        """Forget where the points in the given rows are, but not how they look."""

    @abstractmethod
    def _track(
        self,
        features: FeatureMap | None,
        before: Grey,
        image: Grey,
        start: Floats,
        intervals: float,
    ) -> None:
        """Update positions, visibility, confidence and forward-backward error to the next frame.

        Args:
            features: the frame's feature map, if it has one.
            before: grey levels of the frame before, of any size.
            image: grey levels of the frame.
            start: [N, 2] in model pixels, where searches begin.
            intervals: usual frame intervals since the frame before.

        """

    def _inside(self) -> Bools:
        """Return which points [N] are inside the frame."""
        size = np.array([self._grid.width, self._grid.height], np.float32)
        inside = ((self._positions >= 0) & (self._positions < size)).all(axis=1)
        return np.asarray(inside, np.bool_)

    def _scale(self) -> Floats:
        """Return the model pixels in a pixel of the last frame, (x, y)."""
        if self._image is None:
            raise InputError("no frame was pushed yet. Push a frame first.")
        return self._grid.model_from_frame(self._image.shape)
