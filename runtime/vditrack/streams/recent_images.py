"""The grey levels of the last frames of a stream, through which late points are carried to now.

Who detects points needs time: when they are added, the frame that they were detected in is past.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from vditrack.arrays import Bools, Floats, Grey
from vditrack.bundle.configuration import CameraMotion, LiveTracking
from vditrack.coordinates import pixel_unit
from vditrack.errors import InputError
from vditrack.input_checks.arrays import check_points
from vditrack.points.bridging import carry_points, follow, size_ratio
from vditrack.points.origin import Origin

FindTextureless = Callable[[Origin], Bools]
"""Returns which points [N] have too little texture around them to be followed by flow."""


@dataclass(frozen=True)
class _Recent:
    """A frame, reduced if it is large."""

    stamp: float
    size: tuple[int, int]
    """(height, width) of the frame."""
    image: Grey

    @property
    def scale(self) -> Floats:
        """Pixels (x, y) of the image in a pixel of the frame."""
        (height, width), (image_height, image_width) = self.size, self.image.shape
        return np.array([image_width / width, image_height / height], np.float32)


@dataclass(frozen=True)
class CarriedPoints:
    """N points that were marked on an earlier frame."""

    origin: Origin
    """Where they were marked."""
    places: Floats
    """[N, 2] (x, y) in pixels of the newest frame; a guess where they were lost."""
    held: Bools
    """[N] whether flow has not lost them."""


class RecentImages:
    """The last frames, in bounded memory."""

    def __init__(self, settings: LiveTracking, camera: CameraMotion | None) -> None:
        """Start without frames.

        Args:
            settings: of bridging.
            camera: of the camera's motion; None to use none.

        """
        self._settings, self._camera = settings, camera
        self._frames: deque[_Recent] = deque()
        self._bytes = 0

    def add(self, image: Grey, stamp: float) -> None:
        """Append the newest frame, and drop the oldest that are no longer kept."""
        settings, (height, width) = self._settings, image.shape
        factor = -(-width // settings.recent_width)
        size, reduced = (height, width), image
        if factor > 1:
            target = max(1, width // factor), max(1, height // factor)
            reduced = np.asarray(cv2.resize(image, target, interpolation=cv2.INTER_AREA), np.uint8)
        frames = self._frames
        frames.append(_Recent(stamp, size, reduced))
        self._bytes += reduced.nbytes
        oldest = stamp - settings.recent_seconds
        while len(frames) > 1 and (frames[0].stamp < oldest or self._bytes > settings.recent_bytes):
            self._bytes -= frames.popleft().image.nbytes

    def size_at(self, stamp: float) -> tuple[int, int]:
        """Return (height, width) of the frame of a stamp, or of the nearest one.

        Raises:
            InputError: The stamp is older than all frames that are kept, or ahead of the newest.

        """
        return self._frames[self._nearest(stamp)].size

    def carry(
        self, points: Floats, stamp: float, find_textureless: FindTextureless
    ) -> CarriedPoints:
        """Carry points from an earlier frame to the newest one.

        Flow follows them through the frames between, forward and backward, and those without
        texture go with the camera. In the end each is followed once more in a single step, which
        does not drift; its result is taken where it agrees.

        Args:
            points: [N, 2] (x, y) in pixels of the frame of the stamp; N is at least 1.
            stamp: of the frame in seconds. If it lies between those of two frames, the points are
                first moved to the nearer one, by the share of their motion between the two.
            find_textureless: says which points flow cannot follow.

        Raises:
            InputError: The stamp is older than all frames that are kept, or ahead of the newest,
                or a point is not a finite position inside the frame.

        """
        first = self._nearest(stamp)
        start, newest = self._frames[first], self._frames[-1]
        check_points(points, start.size)
        marked = np.asarray(points * start.scale, np.float32)
        textureless = find_textureless(Origin(start.image, marked))
        marked, held = self._move_to(first, stamp, marked, textureless)
        places, image = marked, start.image
        last = len(self._frames) - 1
        steps = min(last - first, self._settings.max_carry_steps)
        for index in np.linspace(first, last, steps + 1).round().astype(int)[1:].tolist():
            before, image = image, self._frames[index].image
            places, kept = self._step(before, image, places, textureless)
            held &= kept
        places = self._verify(start.image, image, marked, places, held & ~textureless)
        return CarriedPoints(
            Origin(start.image, marked), np.asarray(places / newest.scale, np.float32), held
        )

    def _nearest(self, stamp: float) -> int:
        """Return the number of the frame that is nearest to a stamp."""
        oldest, newest = self._frames[0].stamp, self._frames[-1].stamp
        # Written so that NaN fails too.
        if not stamp <= newest:
            raise InputError(
                f"the points' stamp is {stamp - newest:.3g} s ahead of the newest frame. Add them "
                "after that frame was pushed."
            )
        if stamp < oldest:
            raise InputError(
                f"the points' stamp is {newest - stamp:.3g} s before the newest frame, and the "
                f"frames of the last {newest - oldest:.3g} s are kept. Add points earlier, or on "
                "the newest frame."
            )
        stamps = np.array([frame.stamp for frame in self._frames])
        return int(np.abs(stamps - stamp).argmin())

    def _move_to(
        self, nearest: int, stamp: float, points: Floats, textureless: Bools
    ) -> tuple[Floats, Bools]:
        """Move points from a stamp between two frames to the nearer frame.

        Returns:
            Positions [N, 2] there, and which of them [N] to believe.

        """
        here = self._frames[nearest]
        if stamp == here.stamp:
            return points, np.ones(len(points), np.bool_)
        there = self._frames[nearest + (1 if stamp > here.stamp else -1)]
        moved, held = self._step(here.image, there.image, points, textureless)
        share = np.float32((stamp - here.stamp) / (there.stamp - here.stamp))
        motion = moved / size_ratio(here.image, there.image) - points
        height, width = here.image.shape
        back = points - share * np.where(held[:, None], motion, np.float32(0))
        limit = np.nextafter(np.array([width, height], np.float32), np.float32(0))
        inside = ((back >= 0) & (back <= limit)).all(axis=1)
        return np.clip(back, 0, limit), held & inside

    def _step(
        self, before: Grey, image: Grey, places: Floats, textureless: Bools
    ) -> tuple[Floats, Bools]:
        places = np.asarray(places * size_ratio(before, image), np.float32)
        return carry_points(before, image, places, textureless, self._settings, self._camera)

    def _verify(
        self, first: Grey, last: Grey, marked: Floats, places: Floats, rows: Bools
    ) -> Floats:
        """Return places where those in the given rows are replaced by those of a single step."""
        if first is last or first.shape != last.shape or not rows.any():
            return places
        settings, places = self._settings, places.copy()
        direct, held = follow(
            first, last, marked[rows], places[rows], settings.correction_flow, settings
        )
        limit = settings.max_correction * pixel_unit(last.shape)
        held &= np.linalg.norm(direct - places[rows], axis=1) < limit
        places[np.flatnonzero(rows)[held]] = direct[held]
        return places
