"""The points alive in a stream or clip: what every way of following them has in common."""

from abc import ABC, abstractmethod
from collections import deque

import numpy as np
from threadpoolctl import ThreadpoolController

from vditrack.arrays import Bools, Floats, Frame, Grey, Ints
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.features.feature_map import FeatureMap
from vditrack.input_checks import check_points
from vditrack.points.optical_flow import grey_levels
from vditrack.stage_timing import stage

# The products here are small: a second BLAS thread takes longer to wake than it saves, and spins on
# a core that the inference engine wants next.
_BLAS = ThreadpoolController()


class PointTracker(ABC):
    """N points carried from frame to frame, with bounded memory.

    Positions are kept in model pixels, so a change of the frames' size moves no point.
    """

    def __init__(self, grid: Grid, history: int) -> None:
        self._grid = grid
        self._image: Grey | None = None
        self.ids: Ints = np.zeros(0, np.int64)
        self.age: Ints = np.zeros(0, np.int64)
        self.confidence: Floats = np.zeros(0, np.float32)
        self.forward_backward_error: Floats = np.zeros(0, np.float32)
        self._maps: deque[FeatureMap] = deque(maxlen=history)
        self._places: Floats = np.zeros((0, 2), np.float32)
        self._visible: Bools = np.zeros(0, np.bool_)

    @property
    def points(self) -> Floats:
        """[N, 2] (x, y) in pixels of the last frame."""
        return np.asarray(self._places / self._scale(), np.float32)

    @property
    def visible(self) -> Bools:
        """[N] in the last frame."""
        return self._visible.copy()

    def add(self, ids: Ints, points: Floats) -> None:
        """Start points [N, 2] on the last frame, in its pixels.

        Raises:
            InputError: a point is not a finite position inside the frame.

        """
        if self._image is None:
            raise InputError("points were added before the first frame. Push a frame first.")
        check_points(points, self._image.shape)
        count, places = len(points), np.asarray(points * self._scale(), np.float32)
        self.ids = np.concatenate([self.ids, ids])
        self.age = np.concatenate([self.age, np.zeros(count, np.int64)])
        self.confidence = np.concatenate([self.confidence, np.ones(count, np.float32)])
        self.forward_backward_error = np.concatenate(
            [self.forward_backward_error, np.zeros(count, np.float32)]
        )
        self._places = np.concatenate([self._places, places])
        self._visible = np.concatenate([self._visible, np.ones(count, np.bool_)])
        if count:
            self._begin(places, self._maps[-1], self._image)

    def keep(self, kept: Bools) -> None:
        """Forget the points that are not kept, [N]."""
        self.ids, self.age = self.ids[kept], self.age[kept]
        self.confidence, self.forward_backward_error = (
            self.confidence[kept],
            self.forward_backward_error[kept],
        )
        self._places, self._visible = self._places[kept], self._visible[kept]
        self._forget(kept)

    def advance(
        self,
        features: FeatureMap,
        frame: Frame,
        reach: float = 1.0,
        carried: Floats | None = None,
    ) -> None:
        """Take one step: the next frame's features and pixels.

        Args:
            features: the frame's feature map.
            frame: uint8 [H, W, 3] RGB; of any size, the one before may have had another.
            reach: factor on the search radius, more than 1 after frames were missed.
            carried: [N, 2] (x, y) in pixels of this frame, where flow through the missed frames
                has brought the points; searches begin there. Else where they were before.

        """
        with stage("grey"):
            image = grey_levels(frame)
        self._maps.append(features)
        before, self._image = self._image, image
        if before is not None and len(self.ids):
            start = self._places if carried is None else carried * self._scale()
            self.age = self.age + 1
            with _BLAS.limit(limits=1, user_api="blas"):
                self._step(features, before, image, start, reach)

    @abstractmethod
    def _begin(self, places: Floats, features: FeatureMap, image: Grey) -> None:
        """Remember how new points [N, 2], in model pixels, look in the last frame."""

    @abstractmethod
    def _forget(self, kept: Bools) -> None:
        """Drop what is remembered of the points that are not kept."""

    @abstractmethod
    def _step(
        self, features: FeatureMap, before: Grey, image: Grey, start: Floats, reach: float
    ) -> None:
        """Bring places, visibility, confidence and ``forward_backward_error`` to the next frame.

        Args:
            features: of that frame.
            before: the frame before, of any size.
            image: that frame.
            start: [N, 2] in model pixels, where to begin to look.
            reach: factor on the search radius.

        """

    def _inside(self) -> Bools:
        size = np.array([self._grid.width, self._grid.height], np.float32)
        return np.asarray(((self._places >= 0) & (self._places < size)).all(axis=1), np.bool_)

    def _scale(self) -> Floats:
        """Model pixels a pixel of the last frame, (x, y)."""
        if self._image is None:
            raise InputError("no frame was pushed yet. Push a frame first.")
        return self._grid.model_from_frame(self._image.shape)
