"""The points alive: templates, recent positions, and one step from a frame to the next."""

from collections import deque

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from vditrack.bundle import Matching
from vditrack.consistency import backward_error
from vditrack.errors import InputError
from vditrack.features import FeatureMap, Frame
from vditrack.grid import Grid
from vditrack.matching import Match, cosines, match
from vditrack.refine import Grey, at_size, grey_levels, refine
from vditrack.timing import stage

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# The products here are small: a second BLAS thread takes longer to wake than it saves, and spins on
# a core that the inference engine wants next.
_BLAS = ThreadpoolController()


class TrackedPoints:
    """N points carried from frame to frame, with memory bounded by the settings' horizon.

    A step goes one way: match the templates, refine on pixels, check backward, update what was
    seen. Positions are kept in model pixels, so a change of the frames' size moves no point.
    """

    def __init__(self, grid: Grid, settings: Matching) -> None:
        length = settings.horizon + 1
        self._grid = grid
        self._settings = settings
        self._maps: deque[FeatureMap] = deque(maxlen=length)
        self._image: Grey | None = None
        self._templates = np.zeros((0, 0), np.float32)
        self._trail = np.zeros((0, length, 2), np.float32)
        self._visible = np.zeros((0, length), np.bool_)
        self._was_lost = np.zeros(0, np.bool_)
        self.ids: Ints = np.zeros(0, np.int64)
        self.age: Ints = np.zeros(0, np.int64)
        self.confidence: Floats = np.zeros(0, np.float32)
        self.fb_error: Floats = np.zeros(0, np.float32)

    @property
    def points(self) -> Floats:
        """[N, 2] (x, y) in pixels of the last frame."""
        return np.asarray(self._trail[:, -1] / self._scale(), np.float32)

    @property
    def visible(self) -> Bools:
        """[N] in the last frame."""
        return self._visible[:, -1].copy()

    def add(self, ids: Ints, points: Floats) -> None:
        """Start points [N, 2] on the last frame, in its pixels.

        Raises:
            InputError: a point is not a finite position inside the frame.

        """
        check_points(points, self._image_size())
        positions = points * self._scale()
        count, length = len(points), self._trail.shape[1]
        trail = np.repeat(positions[:, None], length, axis=1)
        templates = self._maps[-1].sample(positions)
        self._templates = np.concatenate(
            [self._templates.reshape(-1, templates.shape[1]), templates]
        )
        self._trail = np.concatenate([self._trail, trail])
        self._visible = np.concatenate([self._visible, np.ones((count, length), np.bool_)])
        self._was_lost = np.concatenate([self._was_lost, np.zeros(count, np.bool_)])
        self.ids = np.concatenate([self.ids, ids])
        self.age = np.concatenate([self.age, np.zeros(count, np.int64)])
        self.confidence = np.concatenate([self.confidence, np.ones(count, np.float32)])
        self.fb_error = np.concatenate([self.fb_error, np.zeros(count, np.float32)])

    def keep(self, kept: Bools) -> None:
        """Forget the points that are not kept, [N]."""
        self._templates, self._was_lost = self._templates[kept], self._was_lost[kept]
        self._trail, self._visible = self._trail[kept], self._visible[kept]
        self.ids, self.age = self.ids[kept], self.age[kept]
        self.confidence, self.fb_error = self.confidence[kept], self.fb_error[kept]

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
        if len(self.ids):
            with _BLAS.limit(limits=1, user_api="blas"):
                start = self._trail[:, -1]
                if carried is not None:
                    start = carried * self._grid.model_from_frame(image.shape)
                self._step(features, image, reach, start)
        self._image = image

    def _step(self, features: FeatureMap, image: Grey, reach: float, start: Floats) -> None:
        seen = self._visible[:, -1]
        with stage("matching"):
            found = match(self._templates, features, start, seen, self._settings, reach)
        with stage("refinement"):
            positions = self._refined(start, found, features, image)
        self.age = self.age + 1
        self._trail = _shifted(self._trail, positions)
        self._visible = _shifted(self._visible, np.zeros(len(self.ids), np.bool_))
        with stage("consistency"):
            self.fb_error = self._backward_error()
        self.confidence = self._confidence(found.similarity, positions)
        self._visible[:, -1] = self.confidence >= 0.5
        self._was_lost |= ~self._visible[:, -1]
        with stage("templates"):
            self._update_templates(features)

    def _refined(self, start: Floats, found: Match, features: FeatureMap, image: Grey) -> Floats:
        """Positions refined on pixels.

        A point that was lost came back by its descriptor alone, perhaps beside its place: flow
        must not keep it there when the descriptors find it better elsewhere.
        """
        matched = found.points
        previous, radius = self._image, self._settings.refine_radius
        if previous is None or radius == 0:
            return matched
        previous = at_size(previous, image.shape)
        scale = self._grid.model_from_frame(image.shape)
        # The smaller factor, so that the radius holds along both axes.
        radius_in_frame = radius / float(scale.max())
        before = self._trail[:, -1] / scale
        guess = start / scale
        points = refine(previous, image, before, matched / scale, radius_in_frame, guess)
        refined = np.asarray(points * scale, np.float32)
        similarity = cosines(self._templates, features.sample(refined))
        followed = similarity >= found.similarity - self._settings.refine_margin
        followed |= ~self._was_lost
        return np.where(followed[:, None], refined, matched)

    def _backward_error(self) -> Floats:
        frames = len(self._maps)
        trail, visible = self._trail[:, -frames:], self._visible[:, -frames:]
        return backward_error(self._maps, trail, visible, self.age, self._settings)

    def _confidence(self, similarity: Floats, positions: Floats) -> Floats:
        """Of each test, one half at its threshold; the worst of them counts."""
        settings = self._settings
        returning = np.isinf(self.fb_error)
        threshold = np.where(returning, settings.recovery_threshold, settings.similarity_threshold)
        of_similarity = 0.5 ** ((1 - similarity) / (1 - threshold))
        of_distance = 0.5 ** (self.fb_error / settings.visibility_threshold)
        confidence = np.where(returning, of_similarity, np.minimum(of_similarity, of_distance))
        size = np.array([self._grid.width, self._grid.height], np.float32)
        inside = ((positions >= 0) & (positions < size)).all(axis=1)
        return np.asarray(np.clip(confidence * inside, 0, 1), np.float32)

    def _update_templates(self, features: FeatureMap) -> None:
        seen, weight = self._visible[:, -1], self._settings.template_update
        if not self._settings.update_after_loss:
            # Else a mistaken return would be learnt, and never mended.
            seen = seen & ~self._was_lost
        newest = features.sample(self._trail[seen, -1])
        self._templates[seen] = (1 - weight) * self._templates[seen] + weight * newest

    def _image_size(self) -> tuple[int, int]:
        if self._image is None:
            raise InputError("points were added before the first frame. Push a frame first.")
        return self._image.shape[0], self._image.shape[1]

    def _scale(self) -> Floats:
        """Model pixels a pixel of the last frame, (x, y)."""
        return self._grid.model_from_frame(self._image_size())


def check_points(points: Floats, size: tuple[int, int]) -> None:
    """Refuse points [N, 2] that are not finite positions inside a frame of (height, width)."""
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"points have shape {list(points.shape)}; give [N, 2] (x, y).")
    height, width = size
    # Written so that NaN fails too.
    inside = (points >= 0).all(axis=1) & (points < np.array([width, height])).all(axis=1)
    if not inside.all():
        first = int(np.flatnonzero(~inside)[0])
        x, y = points[first]
        raise InputError(
            f"point {first} at ({x:g}, {y:g}) is not inside the frame of {width} x {height} "
            f"pixels: x must be in [0, {width}), y in [0, {height})."
        )


def _shifted(history: NDArray, newest: NDArray) -> NDArray:  # type: ignore[type-arg]
    """History [N, K, ...] without its oldest and with the newest [N, ...] at the end."""
    return np.concatenate([history[:, 1:], newest[:, None]], axis=1)
