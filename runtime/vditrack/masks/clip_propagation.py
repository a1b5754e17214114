"""Masks propagated through a clip of any length, block by block."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles, Mask, MaskClip
from vditrack.features.clip_frames import ClipFrames
from vditrack.features.fusion import FusedFeatures
from vditrack.features.prefetching import prefetch
from vditrack.masks.objects import MaskedObjects

_BLOCK = 16
"""Frames of a block, whose masks are in memory."""
_AHEAD = 2
"""Frames whose features are computed while labels are propagated: with one, the networks wait for
the labels at every frame, since neither takes the same time at each."""


@dataclass(frozen=True)
class MaskBlock:
    """Masks of B successive frames of a clip."""

    first_frame: int
    """Number of the first of the frames."""
    times: Doubles
    """[B] times of the frames, in seconds."""
    masks: MaskClip
    """uint8 [B, H, W]: the index of the object at each pixel, 0 for the background."""

    @property
    def frames(self) -> slice:
        """The frames of the block in the clip."""
        return slice(self.first_frame, self.first_frame + len(self.times))


class ClipPropagation(Iterator[MaskBlock]):
    """Propagates masks through a clip block by block, with memory that does not grow."""

    def __init__(
        self,
        features: FusedFeatures,
        clip: ClipFrames,
        given: Mapping[int, Mask],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Start before the first frame.

        Args:
            features: of the bundle, for masks.
            clip: T frames.
            given: masks uint8 [H, W] by the number of their frame, checked.
            progress: called with (frames done, frames in all).

        """
        self._features, self._clip, self._given = features, clip, given
        self._progress = progress
        self._objects = MaskedObjects(features.settings)
        self._next = 0
        self._blocks = self._run()

    def __next__(self) -> MaskBlock:
        """Return the next block."""
        return next(self._blocks)

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """Return the state after the last block, from which `resume` goes on."""
        return {"place": np.array([False, self._next], np.int64), **self._objects.list_state()}

    def resume(self, checkpoint: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a checkpoint of the same clip, masks and settings, before the first block.

        The blocks that follow are those that would have followed it.
        """
        self._next = int(checkpoint["place"][1])
        self._objects.restore_state(checkpoint)

    def _run(self) -> Iterator[MaskBlock]:
        count, objects = len(self._clip), self._objects
        coming = prefetch(self._features.clip(self._clip, self._next), _AHEAD)
        while self._next < count:
            first, end = self._next, min(count, (self._next // _BLOCK + 1) * _BLOCK)
            masks = np.empty((end - first, *self._clip.size), np.uint8)
            for place in range(end - first):
                features, frame = next(coming), first + place
                objects.advance(features.descriptors, self._clip.size, features.velocity)
                if frame in self._given:
                    objects.add_masks(self._given[frame])
                masks[place] = objects.mask
                self._next = frame + 1
                if self._progress is not None:
                    self._progress(self._next, count)
            yield MaskBlock(first, self._clip.times[first:end], masks)
