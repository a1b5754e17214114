"""The result of tracking a clip, and the files of points and tracks."""

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
    """[N, 3] (t, x, y): where each track was asked for."""
    points: NDArray[np.float32]
    """[N, T, 2] (x, y); a best guess where the point is invisible."""
    visible: NDArray[np.bool_]
    """[N, T]"""
    confidence: NDArray[np.float32]
    """[N, T] in [0, 1]; at least 0.5 exactly where the point is visible."""
    forward_backward_error: NDArray[np.float32]
    """[N, T] forward-backward distance in model pixels (RMS over frames); inf where unknown."""
    object_id: NDArray[np.uint8] | None = None
    """[N, T] index of the object that each point is on, 0 for none and where it is invisible; None
    where no masks were given (`on_objects`)."""

    def on_objects(self, masks: NDArray[np.uint8]) -> "Tracks":
        """Say of each point which object it is on.

        Args:
            masks: uint8 [T, H, W] of the frames: indices of objects, 0 for the background, such as
                `Tracker.propagate` gives.

        Raises:
            InputError: there is not one mask a frame.

        """
        frames = self.points.shape[1]
        if masks.ndim != 3 or len(masks) != frames:
            raise InputError(f"masks are {list(masks.shape)}, not [{frames}, H, W]: one a frame.")
        found = [
            read_object_ids(self.points[:, t], self.visible[:, t], mask)
            for t, mask in enumerate(masks)
        ]
        return replace(self, object_id=np.stack(found, axis=1))


def concatenate_tracks(shots: Sequence[Tracks]) -> Tracks:
    """Tracks of clips that follow each other, as tracks of the whole.

    Outside its own clip a point is invisible and stays where it was last, or will be first.
    """
    lengths = [shot.points.shape[1] for shot in shots]
    firsts = np.cumsum([0, *lengths])
    parts = [
        _placed(shot, first, firsts[-1] - first - length)
        for shot, first, length in zip(shots, firsts, lengths, strict=False)
    ]
    return Tracks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _placed(shot: Tracks, before: int, after: int) -> tuple[NDArray[Any], ...]:
    """Arrays of a clip's tracks, with frames added on both sides."""
    around = ((0, 0), (before, after))
    return (
        shot.queries + np.array([before, 0, 0], np.float32),
        np.pad(shot.points, (*around, (0, 0)), mode="edge"),
        np.pad(shot.visible, around, constant_values=False),
        np.pad(shot.confidence, around, constant_values=0),
        np.pad(shot.forward_backward_error, around, constant_values=np.inf),
    )
