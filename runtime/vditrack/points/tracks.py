"""The result of tracking a clip."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import InputError
from vditrack.points.object_ids import read_object_ids


@dataclass(frozen=True)
class Tracks:
    """Tracks of N points over T frames.

    Coordinates are (x, y) in pixels of the original frame; (0, 0) is the upper-left corner of the
    upper-left pixel, so the first pixel's centre is (0.5, 0.5).
    """

    queries: NDArray[np.float32]
    """[N, 3] (t, x, y): the query of each track."""
    points: NDArray[np.float32]
    """[N, T, 2] (x, y); a guess where the point is invisible."""
    visible: NDArray[np.bool_]
    """[N, T]"""
    confidence: NDArray[np.float32]
    """[N, T] in [0, 1]; at least 0.5 exactly where the point is visible."""
    forward_backward_error: NDArray[np.float32]
    """[N, T] forward-backward distance in model pixels (RMS over frames); inf where unknown."""
    object_id: NDArray[np.uint8] | None = None
    """[N, T] index of the object that each point is on; 0 for none and where it is invisible. None
    if no masks were given (`on_objects`)."""

    def on_objects(self, masks: Iterable[NDArray[np.uint8]]) -> "Tracks":
        """Return the same tracks with the object that each point is on.

        Args:
            masks: uint8 [H, W] of each of the T frames: indices of objects, 0 for the background,
                as `Tracker.propagate` returns them.

        Raises:
            InputError: There is not one mask for each frame.

        """
        frames, found = self.points.shape[1], np.zeros(self.visible.shape, np.uint8)
        count = 0
        for mask in masks:
            if count == frames or mask.ndim != 2:
                raise self._explain_masks()
            points, visible = self.points[:, count], self.visible[:, count]
            found[:, count] = read_object_ids(points, visible, mask)
            count += 1
        if count != frames:
            raise self._explain_masks()
        return replace(self, object_id=found)

    def _explain_masks(self) -> InputError:
        frames = self.points.shape[1]
        return InputError(f"masks do not fit the tracks: give one a frame, {frames} of [H, W].")


def concatenate_tracks(shots: Sequence[Tracks]) -> Tracks:
    """Concatenate the tracks of consecutive clips to tracks of the whole video.

    Outside its own clip a point is invisible, at its first or last position. One clip is returned
    as it is.
    """
    if len(shots) == 1:
        return shots[0]
    lengths = [shot.points.shape[1] for shot in shots]
    firsts = np.cumsum([0, *lengths])
    parts = [
        _pad_frames(shot, first, firsts[-1] - first - length)
        for shot, first, length in zip(shots, firsts, lengths, strict=False)
    ]
    return Tracks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _pad_frames(shot: Tracks, before: int, after: int) -> tuple[NDArray[Any], ...]:
    """Return the arrays of a clip's tracks, padded by frames before and after."""
    around = ((0, 0), (before, after))
    return (
        shot.queries + np.array([before, 0, 0], np.float32),
        np.pad(shot.points, (*around, (0, 0)), mode="edge"),
        np.pad(shot.visible, around, constant_values=False),
        np.pad(shot.confidence, around, constant_values=0),
        np.pad(shot.forward_backward_error, around, constant_values=np.inf),
    )
