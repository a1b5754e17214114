"""Baseline trackers behind the interface of `vditrack.Tracker`: OpenCV and simpler methods."""

from collections.abc import Iterator
from itertools import pairwise, repeat
from typing import Protocol, TypeAlias, runtime_checkable

import cv2
import numpy as np

from vditrack.arrays import Bools, Floats, Grey, ImageSequence
from vditrack.coordinates import pixel_centres
from vditrack.evaluation.baselines.masks_from_points import Step, move_masks
from vditrack.evaluation.baselines.raw_patch_masks import propagate_patches
from vditrack.evaluation.lazy_images import gather_masks, map_images
from vditrack.points.tracks import Tracks

_CENTRE = np.float32(pixel_centres(np.zeros(1, np.intp))[0])
"""Offset of OpenCV's coordinates, which are measured from the centre of the first pixel."""


@runtime_checkable
class PointTracker(Protocol):
    """A method that tracks points through a clip, such as `vditrack.Tracker`."""

    def track(self, frames: ImageSequence, queries: Floats) -> Tracks:
        """Track queries [N, 3] (t, x, y) forward and backward through frames [T, H, W, 3]."""


@runtime_checkable
class MaskPropagator(Protocol):
    """A method that propagates the masks of the first frame through a clip."""

    def propagate(self, frames: ImageSequence, first: Grey, /) -> ImageSequence:
        """Return object indices [T, H, W], given those of the first frame [H, W]."""


Method: TypeAlias = PointTracker | MaskPropagator


class Still:
    """The baseline without motion: everything stays in place and is visible."""

    def track(self, frames: ImageSequence, queries: Floats) -> Tracks:
        """See `PointTracker`."""
        return _static_tracks(frames, queries)

    def propagate(self, frames: ImageSequence, first: Grey, /) -> ImageSequence:
        """See `MaskPropagator`."""
        return gather_masks(repeat(first, len(frames)), frames)


class LucasKanade:
    """OpenCV's pyramidal Lucas-Kanade from frame to frame, with a forward-backward check.

    A point whose forward-backward error is two pixels or more is lost for good. Its position still
    follows the flow.
    """

    _LEVELS, _TOLERANCE = 4, 2.0
    _MASK_WINDOW = 11

    def __init__(self, window: int = 15) -> None:
        """Set the width and height of the window, in pixels."""
        self._window = (window, window)

    def track(self, frames: ImageSequence, queries: Floats) -> Tracks:
        """See `PointTracker`."""
        return _chain_steps(frames, queries, self.step)

    def propagate(self, frames: ImageSequence, first: Grey, /) -> ImageSequence:
        """See `MaskPropagator` and `move_masks`. Small windows fit small objects."""
        step = LucasKanade(self._MASK_WINDOW).step
        return gather_masks(move_masks(_to_grey(frames), first, step), frames)

    def step(self, before: Grey, after: Grey, points: Floats) -> tuple[Floats, Bools]:
        """Track points [N, 2] to the next frame; return positions and which pass the check."""
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
    """OpenCV's dense inverse search flow from frame to frame, with the same check."""

    _TOLERANCE = 2.0

    def __init__(self) -> None:
        """Create the flow with OpenCV's medium preset."""
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def track(self, frames: ImageSequence, queries: Floats) -> Tracks:
        """See `PointTracker`."""
        return _chain_steps(frames, queries, self._step)

    def propagate(self, frames: ImageSequence, first: Grey, /) -> ImageSequence:
        """See `MaskPropagator`. Each pixel takes the label from which backward flow leads to it."""
        return gather_masks(self._warp_masks(_to_grey(frames), first), frames)

    def _warp_masks(self, greys: ImageSequence, first: Grey) -> Iterator[Grey]:
        columns, rows = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in first.shape[::-1]))
        mask = first
        yield mask
        for before, after in pairwise(greys):
            flow = self._flow.calc(after, before, None)
            came_from = columns + flow[..., 0], rows + flow[..., 1]
            mask = np.asarray(cv2.remap(mask, *came_from, cv2.INTER_NEAREST), np.uint8)
            yield mask

    def _step(self, before: Grey, after: Grey, points: Floats) -> tuple[Floats, Bools]:
        there = points + self._flow_at(before, after, points)
        back = there + self._flow_at(after, before, there)
        kept = np.linalg.norm(back - points, axis=1) < self._TOLERANCE
        return there, kept & _inside(there, after)

    def _flow_at(self, before: Grey, after: Grey, points: Floats) -> Floats:
        """Return the flow at points [N, 2] of the frame before, replicated beyond its border."""
        flow = self._flow.calc(before, after, None)
        places = points[:, None] - _CENTRE
        sampled = cv2.remap(flow, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(sampled[:, 0], np.float32)


class Patches:
    """The best match of the query's patch of pixels, anywhere in each frame.

    Patches are compared by normalised cross-correlation. A match below 0.7 is not visible.
    """

    _RADIUS, _THRESHOLD = 7, 0.7

    def track(self, frames: ImageSequence, queries: Floats) -> Tracks:
        """See `PointTracker`."""
        tracks = _static_tracks(frames, queries)
        side = 2 * self._RADIUS + 1
        query_frames = queries[:, 0].astype(np.intp)
        query_points = queries[:, 1:] - _CENTRE
        greys = _to_grey(frames)
        patches: dict[int, Grey] = {}
        for n in np.argsort(query_frames, kind="stable").tolist():
            picture = _pad_reflected(greys[int(query_frames[n])], self._RADIUS)
            patches[n] = cv2.getRectSubPix(picture, (side, side), query_points[n] + self._RADIUS)
        for t, grey in enumerate(greys):
            picture = _pad_reflected(grey, self._RADIUS)
            for n, patch in patches.items():
                if t == query_frames[n]:
                    continue
                correlation = cv2.matchTemplate(picture, patch, cv2.TM_CCOEFF_NORMED)
                _, best, _, best_place = cv2.minMaxLoc(correlation)
                tracks.points[n, t] = np.array(best_place, np.float32) + _CENTRE
                tracks.visible[n, t] = best >= self._THRESHOLD
        return _set_binary_confidence(tracks)

    def propagate(self, frames: ImageSequence, first: Grey, /) -> ImageSequence:
        """See `MaskPropagator` and `propagate_patches`."""
        return gather_masks(propagate_patches(frames, first), frames)


def _static_tracks(frames: ImageSequence, queries: Floats) -> Tracks:
    """Return tracks that stay at their queries, always visible."""
    count, length = len(queries), len(frames)
    return Tracks(
        queries=queries,
        points=np.repeat(queries[:, None, 1:], length, axis=1).astype(np.float32),
        visible=np.ones((count, length), np.bool_),
        confidence=np.ones((count, length), np.float32),
        forward_backward_error=np.full((count, length), np.inf, np.float32),
    )


def _chain_steps(frames: ImageSequence, queries: Floats, step: Step) -> Tracks:
    """Return tracks chained from steps between frames, forward and backward from each query.

    A point that a step does not keep is lost for good; its position still follows the steps.
    """
    tracks = _static_tracks(frames, queries)
    tracks.visible[:] = False
    query_frames = queries[:, 0].astype(np.intp)
    tracks.visible[np.arange(len(queries)), query_frames] = True
    greys = _to_grey(frames)
    for direction in (1, -1):
        for before in range(len(frames))[::direction]:
            after = before + direction
            alive = np.flatnonzero((before - query_frames) * direction >= 0)
            if len(alive) and 0 <= after < len(frames):
                points, kept = step(greys[before], greys[after], tracks.points[alive, before])
                tracks.points[alive, after] = points
                tracks.visible[alive, after] = kept & tracks.visible[alive, before]
    return _set_binary_confidence(tracks)


def _set_binary_confidence(tracks: Tracks) -> Tracks:
    """Set the confidence to 1 where a point is visible, and to 0 elsewhere."""
    tracks.confidence[:] = tracks.visible
    return tracks


def _to_grey(frames: ImageSequence) -> ImageSequence:
    return map_images(
        frames,
        lambda frame: np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8),
        frames.shape[1:3],
    )


def _pad_reflected(image: Grey, width: int) -> Grey:
    border = cv2.BORDER_REFLECT_101
    return np.asarray(cv2.copyMakeBorder(image, width, width, width, width, border), np.uint8)


def _inside(points: Floats, image: Grey) -> Bools:
    size = np.array(image.shape[::-1])
    return np.asarray(((points >= 0) & (points < size)).all(axis=1), np.bool_)
