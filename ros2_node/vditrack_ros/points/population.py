"""Which points live: those asked for, and as many others as are wanted."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Frame
from vditrack.coordinates import cells_from_pixels, pixels_from_cells
from vditrack.streams.realtime import LiveStream, LiveUpdate
from vditrack_ros.parameters import Settings

Size = tuple[int, int]

_PAUSE = 0.2
"""Seconds between two looks for new points: looking for corners takes some milliseconds."""
_QUALITY = 0.01
"""Of a corner, as a share of the best one's, as in OpenCV's examples."""


@dataclass(frozen=True)
class Asked:
    """What became of points that were asked for."""

    taken: int
    outside: int
    refused: int
    """For want of room."""


@dataclass(frozen=True)
class _Living:
    """What is remembered of each living point; ids ascend."""

    ids: NDArray[np.int64]
    places: Floats
    seen: NDArray[np.float64]
    """Stamp at which it was last visible."""
    visible: Bools
    asked: Bools
    """Whether somebody asked for it."""

    def kept(self, chosen: Bools) -> "_Living":
        arrays = (self.ids, self.places, self.seen, self.visible, self.asked)
        return _Living(*(array[chosen] for array in arrays))  # type: ignore[arg-type]

    def with_new(
        self, ids: NDArray[np.int64], places: Floats, stamp: float, *, asked: bool
    ) -> "_Living":
        count = len(ids)
        return _Living(
            np.concatenate([self.ids, ids]),
            np.concatenate([self.places, places]),
            np.concatenate([self.seen, np.full(count, stamp)]),
            np.concatenate([self.visible, np.ones(count, np.bool_)]),
            np.concatenate([self.asked, np.full(count, asked)]),
        )


_NOBODY = _Living(
    np.zeros(0, np.int64),
    np.zeros((0, 2), np.float32),
    np.zeros(0),
    np.zeros(0, np.bool_),
    np.zeros(0, np.bool_),
)


class Population:
    """Adds points to a stream and removes them.

    Points that nobody asked for are given up when they leave the picture or stay invisible, and
    others take their place. Points asked for stay, visible or not, until the stream starts over;
    only for want of room the one invisible for longest makes way for another asked for.
    """

    def __init__(self, live: LiveStream) -> None:
        self._live = live
        self.reset()

    def reset(self) -> None:
        """Forget all points, as the stream has."""
        self._living = _NOBODY
        self._size: Size | None = None
        self._stamp = 0.0
        self._looked = -np.inf

    @property
    def asked(self) -> int:
        """How many living points were asked for."""
        return int(self._living.asked.sum())

    def ask(self, points: Floats, settings: Settings) -> Asked | None:
        """Add points [N, 2] (x, y), in pixels of the last image; None before the first."""
        if self._size is None:
            return None
        wanted = points[_inside(points, self._size)]
        self._make_room(len(wanted), settings.max_points)
        room = max(0, settings.max_points - len(self._living.ids))
        self._add(wanted[:room], asked=True)
        taken = min(room, len(wanted))
        return Asked(taken, len(points) - len(wanted), len(wanted) - taken)

    def step(self, frame: Frame, update: LiveUpdate, settings: Settings) -> None:
        """After a frame was pushed, give up the points that are lost and add others."""
        self._size, self._stamp = frame.shape[:2], update.stamp
        seen = np.where(update.visible, update.stamp, self._living.seen)
        self._living = replace(
            self._living, places=update.points, seen=seen, visible=update.visible
        )
        self._give_up(settings)
        missing = self._wanted(settings) - int((~self._living.asked).sum())
        if missing < 0:
            self._remove(self._others_by_merit()[missing:])
        elif missing > 0 and update.stamp - self._looked >= _PAUSE:
            self._looked = update.stamp
            self._add(self._found(frame, missing, settings), asked=False)

    def _give_up(self, settings: Settings) -> None:
        living = self._living
        assert self._size is not None
        lost = self._stamp - living.seen > settings.lost_after
        lost |= ~_inside(living.places, self._size)
        self._remove(np.flatnonzero(lost & ~living.asked))

    def _wanted(self, settings: Settings) -> int:
        """How many points there should be that nobody asked for."""
        if settings.population == "none":
            return 0
        return max(0, min(settings.points, settings.max_points - self.asked))

    def _found(self, frame: Frame, count: int, settings: Settings) -> Floats:
        if settings.population == "features":
            return feature_points(frame, count, settings.points, self._living.places)
        assert self._size is not None
        return grid_points(self._size, count, settings.points, self._living.places)

    def _make_room(self, count: int, max_points: int) -> None:
        """Remove points that others may replace, until so many more fit or none is left."""
        crowd = len(self._living.ids) + count - max_points
        if crowd <= 0:
            return
        living = self._living
        hidden = np.flatnonzero(living.asked & ~living.visible)
        hidden = hidden[np.argsort(living.seen[hidden], kind="stable")]
        leaving = np.concatenate([self._others_by_merit()[::-1], hidden])
        self._remove(leaving[:crowd])

    def _others_by_merit(self) -> NDArray[np.intp]:
        """Rows of the points that nobody asked for, those seen last and longest known first."""
        living = self._living
        others = np.flatnonzero(~living.asked)
        return others[np.argsort(-living.seen[others], kind="stable")]

    def _add(self, points: Floats, *, asked: bool) -> None:
        if len(points):
            ids = self._live.add(points)
            self._living = self._living.with_new(ids, points, self._stamp, asked=asked)

    def _remove(self, rows: NDArray[np.intp]) -> None:
        if len(rows):
            self._live.remove(self._living.ids[rows])
            kept = np.ones(len(self._living.ids), np.bool_)
            kept[rows] = False
            self._living = self._living.kept(kept)


def grid_points(size: Size, count: int, wanted: int, living: Floats) -> Floats:
    """Give the centres [count, 2] of free cells of a grid, spread evenly.

    Args:
        size: (height, width) of the picture.
        count: of points to give.
        wanted: cells that the grid has at least: as many as there shall be points in the end.
        living: [N, 2] points there are; a cell with one of them is not free.

    """
    height, width = size
    columns = min(wanted, int(np.ceil(np.sqrt(wanted * width / height))))
    rows = int(np.ceil(wanted / columns))
    cell = np.array([width / columns, height / rows])
    taken = np.zeros((rows, columns), np.bool_)
    places = (living[_inside(living, size)] / cell).astype(np.intp)
    taken[np.minimum(places[:, 1], rows - 1), np.minimum(places[:, 0], columns - 1)] = True
    free = np.argwhere(~taken)[:, ::-1].astype(np.float32)
    evenly = np.linspace(0, len(free) - 1, min(count, len(free))).round().astype(np.intp)
    return np.asarray(pixels_from_cells(free[evenly], 1) * cell, np.float32)


def feature_points(frame: Frame, count: int, wanted: int, living: Floats) -> Floats:
    """Give up to ``count`` corners [N, 2] (Shi and Tomasi), apart from each other and the living.

    Args:
        frame: uint8 [H, W, 3] RGB.
        count: of points to give, where there are so many corners.
        wanted: points that there shall be in the end; they decide how far apart corners are.
        living: [N, 2] points there are.

    """
    height, width = frame.shape[:2]
    # Half of the distance that they would have on a grid.
    apart = 0.5 * np.sqrt(height * width / wanted)
    free = np.full((height, width), 255, np.uint8)
    for centre in cells_from_pixels(living[_inside(living, (height, width))], 1).round():
        cv2.circle(free, centre.astype(int).tolist(), round(apart), 0, cv2.FILLED)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    corners = cv2.goodFeaturesToTrack(grey, count, _QUALITY, apart, mask=free)
    if corners is None:
        return np.zeros((0, 2), np.float32)
    return np.asarray(pixels_from_cells(corners[:, 0], 1), np.float32)


def _inside(points: Floats, size: Size) -> Bools:
    """Which of the points [N, 2] are in a picture of (height, width); NaN is not."""
    height, width = size
    return np.asarray(((points >= 0) & (points < (width, height))).all(axis=1))
