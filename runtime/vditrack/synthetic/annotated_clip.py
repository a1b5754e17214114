"""A clip with ground truth: the true tracks and masks that evaluation compares with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame, ImageSequence


def resize_frame(frame: Frame, width: int, height: int) -> Frame:
    """Return a frame uint8 [H, W, 3] at another size, as `AnnotatedClip.resize` does."""
    shrinks = frame.shape[0] > height or frame.shape[1] > width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Frame = cv2.resize(frame, (width, height), interpolation=method)
    return resized


@dataclass(frozen=True)
class AnnotatedClip:
    """Frames and the true tracks of N points in them, or the true masks of objects, or both.

    Coordinates are (x, y) in pixels of the frames; (0, 0) is the upper-left corner of the
    upper-left pixel. A point's position is undefined where it is invisible, unless
    ``known_outside`` is set.
    """

    name: str
    frames: ImageSequence
    """uint8 [T, H, W, 3] RGB: an array, or frames that are read when they are needed."""
    points: NDArray[np.float32]
    """[N, T, 2] (x, y); N may be 0."""
    visible: NDArray[np.bool_]
    """[N, T] visibility."""
    masks: ImageSequence | None = None
    """uint8 [T, H, W] index of the object at each pixel, 0 the background."""
    objects: NDArray[np.uint8] | None = None
    """[N] index, as in ``masks``, of the object that each point lies on."""
    alike: tuple[int, ...] = ()
    """Indices of objects that look the same; set only with ``masks`` and ``objects``."""
    known_outside: bool = False
    """Whether ``points`` holds the true position of a point in every frame, also where the point is
    outside the frame or occluded."""

    @property
    def size(self) -> NDArray[np.float32]:
        """Width and height of the frames, float32 [2]."""
        return np.array(self.frames.shape[2:0:-1], np.float32)

    def resize(self, width: int, height: int) -> AnnotatedClip:
        """Return the clip in memory at another size; the aspect ratio may change."""
        if self.frames.shape[1:3] == (height, width):
            return self
        frames = [resize_frame(frame, width, height) for frame in self.frames]
        masks = self.masks
        if masks is not None:
            nearest = cv2.INTER_NEAREST_EXACT
            resized = [cv2.resize(mask, (width, height), interpolation=nearest) for mask in masks]
            masks = np.asarray(np.stack(resized), np.uint8)
        scale = np.array([width, height], np.float32) / self.size
        return replace(
            self,
            frames=np.asarray(np.stack(frames), np.uint8),
            points=self.points * scale,
            masks=masks,
        )
