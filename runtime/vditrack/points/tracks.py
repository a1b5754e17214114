"""The result of tracking a clip."""

from collections.abc import Sequence
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

    def on_objects(self, masks: NDArray[np.uint8]) -> "Tracks":
        """Return the same tracks with the object that each point is on.

        Args:
            masks: uint8 [T, H, W] of the frames: indices of objects, 0 for the background, as
                `Tracker.propagate` returns them.

        Raises:
            InputError: There is not one mask for each frame.

        """
        frames = self.points.shape[1]
        if masks.ndim != 3 or len(masks) != frames:
            raise InputError(
                f"masks have shape {list(masks.shape)}; give one a frame: [{frames}, H, W]."
            )
        found = [
            read_object_ids(self.points[:, t], self.visible[:, t], mask)
            for t, mask in enumerate(masks)
        ]
        return replace(self, object_id=np.stack(found, axis=1))


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
