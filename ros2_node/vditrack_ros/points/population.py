"""The points that are kept alive: requested points, and a population that fills the image."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import cv2
import numpy as np

from vditrack.arrays import Bools, Doubles, Floats, Frame, Indices, Ints, Mask
from vditrack.coordinates import pixels_from_cells
from vditrack.points.corners import detect_corners
from vditrack.points.optical_flow import grey_levels
from vditrack.streams.realtime import LiveStream, LiveUpdate
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.points.population_area import PopulationArea

Size = tuple[int, int]
"""(height, width)."""

_FINER = 1.2
"""Factor by which a grid gets more cells if too few of them are in the allowed part."""


@dataclass(frozen=True)
class _Points:
    """State of the living points, in the order of their ids."""

    ids: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    positions: Floats = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    last_seen: Doubles = field(default_factory=lambda: np.zeros(0))
    """Stamps in seconds at which the points were last visible; -inf since a restart."""
    visible: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    requested: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))

    def select(self, chosen: Bools) -> _Points:
        """Return the chosen points."""
        return _Points(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def append(self, ids: Ints, positions: Floats, stamp: float, *, requested: bool) -> _Points:
        """Return these points and new ones, which count as visible."""
        count = len(ids)
        new = _Points(
            ids,
            positions,
            np.full(count, stamp),
            np.ones(count, np.bool_),
            np.full(count, requested),
        )
        names = [part.name for part in fields(self)]
        return _Points(*(np.concatenate([getattr(self, n), getattr(new, n)]) for n in names))


@dataclass(frozen=True)
class RequestResult:
    """What became of requested points."""

    ids: list[int] = field(default_factory=list)
    """Identifier of each point; -1 if it was not added."""
    reasons: list[str] = field(default_factory=list)
    """Why each point was not added; empty if it was."""
    fault: str = ""
    """Why the whole request is refused; the lists are then empty."""

    @property
    def added(self) -> int:
        """Number of points that were added."""
        return sum(identifier >= 0 for identifier in self.ids)


class Population:
    """Adds points to a stream and removes them.

    Points of the population are removed when they leave the image or stay invisible, and others
    are added. Requested points stay, visible or not, until the stream is reset; only if there is
    no room, the one that was invisible for longest is replaced by a newly requested point.
    """

    def __init__(self, live: LiveStream) -> None:
        """Start without points.

        Args:
            live: the stream that tracks the points.

        """
        self._live = live
        self.area = PopulationArea()
        """Where points are put."""
        self.reset()

    def reset(self) -> None:
        """Discard all points; the stream has been reset as well."""
        self._points = _Points()
        self._forget_images()

    def restart(self, *, keep_population: bool) -> int:
        """Restart the stream; return how many requested points there are, all of which are kept.

        Args:
            keep_population: whether points of the population are searched for too, for the time
                that a point may be lost. They do not count until they are found.

        """
        points = self._points
        kept = self._live.restart(points.ids[points.requested | keep_population])
        points = points.select(np.isin(points.ids, kept))
        never, hidden = np.full(len(kept), -np.inf), np.zeros(len(kept), np.bool_)
        self._points = replace(points, last_seen=never, visible=hidden)
        self._forget_images()
        return self.requested_count

    def _forget_images(self) -> None:
        self._size: Size | None = None
        self._stamp = 0.0
        self._first_stamp: float | None = None
        self._last_search = -np.inf

    @property
    def _placed(self) -> Bools:
        """Which points [N] were visible since the last restart; others have no known position."""
        return np.isfinite(self._points.last_seen)

    @property
    def requested_count(self) -> int:
        """Number of requested points alive."""
        return int(self._points.requested.sum())

    def add_requested(
        self, points: Floats, settings: Settings, stamp: float | None = None
    ) -> RequestResult:
        """Add requested points.

        Args:
            points: pixels (x, y) [N, 2] of their image.
            settings: the node's.
            stamp: of their image in seconds; None for the newest.

        Raises:
            InputError: there is no image yet, or none of that time.

        """
        height, width = size = self._live.frame_size(stamp)
        inside = np.flatnonzero(_is_inside(points, size))
        self._make_room(len(inside), settings.max_points)
        placed = inside[: max(0, settings.max_points - len(self._points.ids))]
        ids, reasons = np.full(len(points), -1, np.int64), [""] * len(points)
        ids[placed] = self._add(points[placed], stamp, requested=True)
        for row in np.flatnonzero(ids < 0).tolist():
            if row in inside:
                reasons[row] = f"max_points is {settings.max_points}. Raise it, or remove points."
            elif not np.isfinite(points[row]).all():
                reasons[row] = "Its position is not finite."
            else:
                reasons[row] = f"It is outside the image of {width} x {height} pixels."
        return RequestResult(ids.tolist(), reasons)

    def find_requested(self, ids: Ints) -> Bools:
        """Return which points [N], given by their ids, were requested."""
        requested = self._points.ids[self._points.requested]
        return np.isin(ids, requested)

    def remove(self, identifier: int) -> bool:
        """Remove a point; return False if there is none with the id."""
        rows = np.flatnonzero(self._points.ids == identifier)
        self._remove(rows)
        return len(rows) > 0

    def update(self, frame: Frame, update: LiveUpdate, settings: Settings) -> None:
        """Remove lost points and add others, after a frame was pushed to the stream.

        Args:
            frame: uint8 [H, W, 3] RGB.
            update: the points in this frame.
            settings: the node's.

        """
        self._size, self._stamp = frame.shape[:2], update.stamp
        if self._first_stamp is None:
            self._first_stamp = update.stamp
        last_seen = np.where(update.visible, update.stamp, self._points.last_seen)
        self._points = replace(
            self._points, positions=update.points, last_seen=last_seen, visible=update.visible
        )
        self._remove_lost(settings)
        if self.area.take_change(settings.region):
            self._remove_outside(settings)
        counted = ~self._points.requested & self._placed
        missing = self._target_count(settings) - int(counted.sum())
        since_search = update.stamp - self._last_search
        if missing < 0:
            # Those without a known position are not counted, and are searched for meanwhile.
            ranked = self._rank_population()
            self._remove(ranked[counted[ranked]][missing:])
        elif missing > 0 and since_search >= settings.refill_interval:
            self._last_search = update.stamp
            self._add(self._find_new_points(frame, missing, settings), None, requested=False)

    def _remove_lost(self, settings: Settings) -> None:
        points = self._points
        assert self._size is not None
        assert self._first_stamp is not None
        last_seen = np.maximum(points.last_seen, self._first_stamp)
        lost = self._stamp - last_seen > settings.lost_after
        lost |= ~_is_inside(points.positions, self._size) & self._placed
        self._remove(np.flatnonzero(lost & ~points.requested))

    def _remove_outside(self, settings: Settings) -> None:
        """Remove the points of the population outside the area, which has just changed.

        Those without a known position go too: they would be found where they were.
        """
        assert self._size is not None
        allowed = self.area.build(self._size, settings.region)
        if allowed is not None:
            outside = ~_is_allowed(self._points.positions, allowed) | ~self._placed
            self._remove(np.flatnonzero(outside & ~self._points.requested))

    def _target_count(self, settings: Settings) -> int:
        """Return the target number of points in the population."""
        if settings.population == "none":
            return 0
        return max(0, min(settings.points, settings.max_points - self.requested_count))

    def _find_new_points(self, frame: Frame, count: int, settings: Settings) -> Floats:
        alive, size = self._points.positions[self._placed], frame.shape[:2]
        allowed = self.area.build(size, settings.region)
        if settings.population == "features":
            quality = settings.corner_quality
            image = grey_levels(frame)
            return detect_corners(image, count, settings.points, alive, quality, allowed)
        return choose_grid_points(size, count, settings.points, alive, allowed)

    def _make_room(self, count: int, max_points: int) -> None:
        """Remove replaceable points until `count` more fit, or none is left."""
        excess = len(self._points.ids) + count - max_points
        if excess <= 0:
            return
        points = self._points
        hidden = np.flatnonzero(points.requested & ~points.visible)
        hidden = hidden[np.argsort(points.last_seen[hidden], kind="stable")]
        replaceable = np.concatenate([self._rank_population()[::-1], hidden])
        self._remove(replaceable[:excess])

    def _rank_population(self) -> Indices:
        """Return the rows of the population: last seen most recently first, then oldest first."""
        points = self._points
        rows = np.flatnonzero(~points.requested)
        return rows[np.argsort(-points.last_seen[rows], kind="stable")]

    def _add(self, points: Floats, stamp: float | None, *, requested: bool) -> Ints:
        if not len(points):
            return np.zeros(0, np.int64)
        ids = self._live.add(points, stamp)
        self._points = self._points.append(ids, points, self._stamp, requested=requested)
        return ids

    def _remove(self, rows: Indices) -> None:
        if len(rows):
            self._live.remove(self._points.ids[rows])
            kept = np.ones(len(self._points.ids), np.bool_)
            kept[rows] = False
            self._points = self._points.select(kept)


def choose_grid_points(
    size: Size, count: int, target: int, alive: Floats, allowed: Mask | None = None
) -> Floats:
    """Return centres of free grid cells, evenly spread, float32 [M, 2] with M <= count.

    Args:
        size: (height, width) of the image.
        count: maximum number of points to return.
        target: total number of points in the end; the grid has at least so many cells.
        alive: positions [N, 2] of the living points; a cell that contains one is not free.
        allowed: uint8 [H, W], not 0 where points may be put; None for everywhere.

    """
    if allowed is not None:
        return _choose_allowed(allowed, count, target, alive)
    height, width = size
    columns = min(target, int(np.ceil(np.sqrt(target * width / height))))
    rows = int(np.ceil(target / columns))
    cell = np.array([width / columns, height / rows])
    occupied = np.zeros((rows, columns), np.bool_)
    places = (alive[_is_inside(alive, size)] / cell).astype(np.intp)
    occupied[np.minimum(places[:, 1], rows - 1), np.minimum(places[:, 0], columns - 1)] = True
    free = np.argwhere(~occupied)[:, ::-1].astype(np.float32)
    spread = np.linspace(0, len(free) - 1, min(count, len(free))).round().astype(np.intp)
    return np.asarray(pixels_from_cells(free[spread], 1) * cell, np.float32)


def _choose_allowed(allowed: Mask, count: int, target: int, alive: Floats) -> Floats:
    """Return centres of free grid cells in the allowed part of an image, float32 [M, 2].

    The grid covers the bounding box of that part, and is so fine that at least `target` cells are
    allowed, if the part has so many pixels.
    """
    left, top, width, height = cv2.boundingRect(allowed)
    if not width:
        return np.zeros((0, 2), np.float32)
    size, corner = (height, width), np.array([left, top], np.float32)

    def choose(cells: int, occupied: Floats) -> Floats:
        centres = corner + choose_grid_points(size, cells, cells, occupied)
        return np.asarray(centres[_is_allowed(centres, allowed)], np.float32)

    nobody = np.zeros((0, 2), np.float32)
    cells = int(np.ceil(target * width * height / np.count_nonzero(allowed)))
    while cells < width * height and len(choose(cells, nobody)) < target:
        cells = int(np.ceil(cells * _FINER))
    centres = choose(min(cells, width * height), alive - corner)
    spread = np.linspace(0, len(centres) - 1, min(count, len(centres))).round().astype(np.intp)
    return np.asarray(centres[spread], np.float32)


def _is_allowed(points: Floats, allowed: Mask) -> Bools:
    """Return which points [N, 2] are where a mask uint8 [H, W] is not 0."""
    inside = _is_inside(points, allowed.shape)
    x, y = np.where(inside[:, None], points, 0).astype(np.intp).T
    return np.asarray(inside & (allowed[y, x] > 0))


def _is_inside(points: Floats, size: Size) -> Bools:
    """Return which points [N, 2] are inside an image of (height, width); NaN is outside."""
    height, width = size
    return np.asarray(((points >= 0) & (points < (width, height))).all(axis=1))
