"""Mask propagation in a live stream: causal, with constant work a frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.bundle.configuration import Streaming
from vditrack.errors import InputError
from vditrack.features.fusion import FusedFeatures
from vditrack.input_checks import check_frame, check_mask
from vditrack.masks.objects import MaskedObjects
from vditrack.streams.frame_clock import FrameClock


@dataclass(frozen=True)
class MaskUpdate:
    """The objects of a stream in the frame just pushed."""

    stamp: float
    """Stamp of the frame, in seconds."""
    mask: NDArray[np.uint8]
    """[H, W]: the index of the object at each pixel, 0 for the background."""
    indices: NDArray[np.uint8]
    """[N] indices of all objects marked so far, in order, including those with no pixel in the
    frame."""
    frames_since_marked: NDArray[np.int64]
    """[N] frames since a mask last named the object."""


class MaskStream:
    """Propagates object masks in a live stream of frames.

    The work of a push depends on the bundle, and its memory also on how often objects were marked:
    marked frames are never dropped. Neither depends on how long the stream has run.

    - A frame with the stamp of the one before is the same frame: nothing is computed.
    - A frame with an older stamp is an error; `reset` starts over after a jump of the clock.
    - If the frame size changes, objects keep their relative position.
    """

    def __init__(self, features: FusedFeatures, streaming: Streaming) -> None:
        """Start a live stream.

        Args:
            features: the bundle's fused features.
            streaming: how the stream treats time.

        """
        self._features, self._streaming = features, streaming
        self.reset()

    def reset(self) -> None:
        """Drop all objects and frames."""
        self._window = self._features.window()
        self._objects = MaskedObjects(self._features.settings)
        self._clock = FrameClock(self._streaming.interval_history)
        self._frames_since_marked = np.zeros(0, np.int64)

    def add_masks(self, mask: NDArray[np.uint8]) -> None:
        """Mark objects on the last frame pushed, which are propagated from there.

        An object that the mask names is moved to where the mask has it. The other objects stay
        where they are, except for the pixels that the mask takes.

        Args:
            mask: uint8 [H, W] of that frame: indices of objects, new ones or known ones, in any
                order and with gaps; 0 leaves a pixel as it is.

        Raises:
            InputError: No frame was pushed yet, or the mask does not fit it.

        """
        if self._clock.stamp is None:
            raise InputError("a mask was given before the first frame. Push a frame first.")
        check_mask(mask, self._size)
        self._objects.add_masks(mask)
        indices, known = self._objects.indices[1:], self._frames_since_marked
        frames = np.pad(known, (0, len(indices) - len(known)))
        self._frames_since_marked = np.where(np.isin(indices, mask), 0, frames)

    def push(self, frame: NDArray[np.uint8], stamp: float) -> MaskUpdate:
        """Propagate all objects into the next frame.

        The frame is uint8 [H, W, 3] RGB; its stamp is in seconds of any epoch.

        Raises:
            InputError: The frame is another array, or the stamp is NaN or older than the last.

        """
        check_frame(frame)
        if self._clock.advance(stamp) > 0:
            fused = self._window.push(frame)
            self._objects.advance(fused.descriptors, frame.shape[:2], fused.velocity)
            self._frames_since_marked = self._frames_since_marked + 1
        return MaskUpdate(
            stamp=stamp,
            mask=self._objects.mask,
            indices=self._objects.indices[1:].copy(),
            frames_since_marked=self._frames_since_marked.copy(),
        )

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width of the last frame."""
        height, width = self._objects.mask.shape
        return height, width
