"""What people use today, and simpler: peers to compare with, behind the tracker's interface."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, TypeAlias, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Grey
from vditrack.coordinates import pixel_centres
from vditrack.evaluation.baselines.masks_from_points import Step, move_masks
from vditrack.evaluation.baselines.raw_patch_masks import propagate_patches
from vditrack.points.tracks import Tracks

_CENTRE = np.float32(pixel_centres(np.zeros(1, np.intp))[0])
"""OpenCV counts from the first pixel's centre."""


@runtime_checkable
class PointTracker(Protocol):
    """Follows points through a clip: `vditrack.Tracker` and all its peers."""

    def track(self, frames: NDArray[np.uint8], queries: Floats) -> Tracks:
        """Track queries [N, 3] (t, x, y) through frames [T, H, W, 3], forward and backward."""


@runtime_checkable
class MaskPropagator(Protocol):
    """Carries the objects of the first frame through a clip."""

    def propagate(self, frames: NDArray[np.uint8], first: Grey, /) -> Grey:
        """Masks [T, H, W] of object indices, from those of the first frame [H, W]."""


Method: TypeAlias = PointTracker | MaskPropagator


class Still:
    """No motion: everything stays where it was, and is always seen."""

    def track(self, frames: NDArray[np.uint8], queries: Floats) -> Tracks:
        """See `PointTracker`."""
        return _held(frames, queries)

    def propagate(self, frames: NDArray[np.uint8], first: Grey, /) -> Grey:
        """See `MaskPropagator`."""
        return np.repeat(first[None], len(frames), axis=0)


class LucasKanade:
    """OpenCV's pyramidal Lucas-Kanade from frame to frame, checked forward and backward.

    A point that does not lead back to within two pixels is lost and stays so; its position goes on
    with the flow.
    """

    _LEVELS, _TOLERANCE = 4, 2.0
    _OF_MASKS = 11

    def __init__(self, window: int = 15) -> None:
        """Take windows of so many pixels in width and height."""
        self._window = (window, window)

    def track(self, frames: NDArray[np.uint8], queries: Floats) -> Tracks:
        """See `PointTracker`."""
        return _chained(frames, queries, self.step)

    def propagate(self, frames: NDArray[np.uint8], first: Grey, /) -> Grey:
        """See `MaskPropagator` and `move_masks`; windows are smaller, as objects may be."""
        return move_masks(_greys(frames), first, LucasKanade(self._OF_MASKS).step)

    def step(self, before: Grey, after: Grey, points: Floats) -> tuple[Floats, Bools]:
        """Follow points [N, 2] from one frame to the next: where to, and which lead back."""
        start = points - _CENTRE
        there, found = self._flow(before, after, start)
        back, found_back = self._flow(after, before, there)
        kept = np.linalg.norm(back - start, axis=1) < self._TOLERANCE
        points = there + _CENTRE
        return points, kept & found & found_back & _inside(points, after)

    def _flow(self, before: Grey, after: Grey, points: Floats) -> tuple[Floats, Bools]:
        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            before, after, points, None, winSize=self._window, maxLevel=self._LEVELS
        )
        return np.asarray(moved, np.float32), np.asarray(found[:, 0] == 1, np.bool_)


class DenseFlow:
    """OpenCV's dense inverse search flow, chained from frame to frame, with the same check."""

    _TOLERANCE = 2.0

    def __init__(self) -> None:
        """Make the flow with OpenCV's medium preset."""
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def track(self, frames: NDArray[np.uint8], queries: Floats) -> Tracks:
        """See `PointTracker`."""
        return _chained(frames, queries, self._step)

    def propagate(self, frames: NDArray[np.uint8], first: Grey, /) -> Grey:
        """See `MaskPropagator`: each pixel takes the label of where the flow says it came from."""
        greys = _greys(frames)
        columns, rows = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in first.shape[::-1]))
        masks = [first]
        for before, after in pairwise(greys):
            flow = self._flow.calc(after, before, None)
            came_from = columns + flow[..., 0], rows + flow[..., 1]
            masks.append(cv2.remap(masks[-1], *came_from, cv2.INTER_NEAREST))
        return np.stack(masks)

    def _step(self, before: Grey, after: Grey, points: Floats) -> tuple[Floats, Bools]:
        there = points + self._at(before, after, points)
        back = there + self._at(after, before, there)
        kept = np.linalg.norm(back - points, axis=1) < self._TOLERANCE
        return there, kept & _inside(there, after)

    def _at(self, before: Grey, after: Grey, points: Floats) -> Floats:
        """Flow [N, 2] at points [N, 2] of the frame before; that of the border outside it."""
        flow = self._flow.calc(before, after, None)
        places = points[:, None] - _CENTRE
        sampled = cv2.remap(flow, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(sampled[:, 0], np.float32)


class Patches:
    """The nearest neighbour of the query's patch of pixels, anywhere in each frame.

    Nearest by normalised cross-correlation; a match below 0.7 counts as not visible.
    """

    _RADIUS, _LEAST = 7, 0.7

    def track(self, frames: NDArray[np.uint8], queries: Floats) -> Tracks:
        """See `PointTracker`."""
        tracks = _held(frames, queries)
        side = 2 * self._RADIUS + 1
        asked_in = queries[:, 0].astype(np.intp)
        asked_at = queries[:, 1:] - _CENTRE
        padded = [_bordered(grey, self._RADIUS) for grey in _greys(frames)]
        for n, (frame, place) in enumerate(zip(asked_in, asked_at, strict=True)):
            patch = cv2.getRectSubPix(padded[frame], (side, side), place + self._RADIUS)
            for t, picture in enumerate(padded):
                if t == frame:
                    continue
                likeness = cv2.matchTemplate(picture, patch, cv2.TM_CCOEFF_NORMED)
                _, best, _, place_of_best = cv2.minMaxLoc(likeness)
                tracks.points[n, t] = np.array(place_of_best, np.float32) + _CENTRE
                tracks.visible[n, t] = best >= self._LEAST
        return _certain(tracks)

    def propagate(self, frames: NDArray[np.uint8], first: Grey, /) -> Grey:
        """See `MaskPropagator` and `propagate_patches`."""
        return propagate_patches(frames, first)


def _held(frames: NDArray[np.uint8], queries: Floats) -> Tracks:
    """Tracks that stay at their queries, always visible."""
    count, length = len(queries), len(frames)
    return Tracks(
        queries=queries,
        points=np.repeat(queries[:, None, 1:], length, axis=1).astype(np.float32),
        visible=np.ones((count, length), np.bool_),
        confidence=np.ones((count, length), np.float32),
        forward_backward_error=np.full((count, length), np.inf, np.float32),
    )


def _chained(frames: NDArray[np.uint8], queries: Floats, step: Step) -> Tracks:
    """Tracks made of steps between neighbouring frames, forward and backward from each query.

    A point that a step does not keep is lost and stays so; its position goes on.
    """
    tracks = _held(frames, queries)
    tracks.visible[:] = False
    asked_in = queries[:, 0].astype(np.intp)
    tracks.visible[np.arange(len(queries)), asked_in] = True
    greys = _greys(frames)
    for direction in (1, -1):
        for before in range(len(frames))[::direction]:
            after = before + direction
            alive = np.flatnonzero((before - asked_in) * direction >= 0)
            if len(alive) and 0 <= after < len(frames):
                points, kept = step(greys[before], greys[after], tracks.points[alive, before])
                tracks.points[alive, after] = points
                tracks.visible[alive, after] = kept & tracks.visible[alive, before]
    return _certain(tracks)


def _certain(tracks: Tracks) -> Tracks:
    """Confidence 1 where a point is visible, 0 where not: these peers know no more."""
    tracks.confidence[:] = tracks.visible
    return tracks


def _greys(frames: NDArray[np.uint8]) -> Sequence[Grey]:
    return [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames]


def _bordered(image: Grey, width: int) -> Grey:
    border = cv2.BORDER_REFLECT_101
    return np.asarray(cv2.copyMakeBorder(image, width, width, width, width, border), np.uint8)


def _inside(points: Floats, image: Grey) -> Bools:
    size = np.array(image.shape[::-1])
    return np.asarray(((points >= 0) & (points < size)).all(axis=1), np.bool_)
