"""Frames of a stream of masks that have no features, because their latent is not complete.

Optical flow carries the masks of the last encoded frame into them. Masks that are given for them
are carried on to the next encoded frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from vditrack.arrays import Floats, Frame, Ints, Mask
from vditrack.masks.objects import MaskedObjects
from vditrack.points.optical_flow import grey_levels
from vditrack.streams.mask_history import EncodedFrame, SkippedFrame


def carry_mask(mask: Mask, before: Frame, after: Frame, size: tuple[int, int]) -> Mask:
    """Carry a mask from one frame into another by dense optical flow.

    Args:
        mask: uint8 [H, W] of the first frame.
        before: that frame at the model's input size, uint8 [h, w, 3] RGB.
        after: the other frame at that size.
        size: (height, width) of the result.

    Returns:
        uint8 of that size; 0 where flow leads out of the first frame.

    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    (height, width), (model_height, model_width) = size, after.shape[:2]
    still = np.zeros((model_height, model_width, 2), np.float32)
    flow = search.calc(grey_levels(after), grey_levels(before), still)
    x = (np.arange(width, dtype=np.float32) + 0.5) * np.float32(model_width / width)
    y = (np.arange(height, dtype=np.float32) + 0.5) * np.float32(model_height / height)
    steps = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    across = (x[None, :] + steps[..., 0]) * np.float32(mask.shape[1] / model_width) - 0.5
    down = (y[:, None] + steps[..., 1]) * np.float32(mask.shape[0] / model_height) - 0.5
    carried = cv2.remap(mask, across, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(carried, np.uint8)


@dataclass(frozen=True)
class BridgedObjects:
    """The objects in a frame without features."""

    mask: Mask
    """uint8 [H, W] of object indices."""
    indices: Mask
    """uint8 [N] of all objects, in order."""
    frames_since_marked: Ints
    """[N]"""
    agreement: Floats
    """[N] of the last encoded frame; 1 for objects that were marked since."""


@dataclass
class BridgedFrames:
    """The frames since the last encoded one, and the masks that were given for them."""

    frames: list[SkippedFrame] = field(default_factory=list)
    masks: list[tuple[SkippedFrame, Mask]] = field(default_factory=list)

    def carry_masks(self, frame: SkippedFrame | EncodedFrame) -> list[Mask]:
        """Return the given masks, carried into a later frame."""
        return [
            mask if marked is frame else carry_mask(mask, marked.shrunk, frame.shrunk, frame.size)
            for marked, mask in self.masks
        ]

    def remove(self, index: int) -> None:
        """Remove an object from the given masks."""
        self.masks = [
            (frame, np.where(mask == index, np.uint8(0), mask)) for frame, mask in self.masks
        ]

    def bridge(self, encoded: EncodedFrame | None, objects: MaskedObjects) -> BridgedObjects:
        """Return the objects in the newest frame.

        Args:
            encoded: the last encoded frame, if there is one.
            objects: those in it.

        """
        newest = self.frames[-1]
        shown = np.zeros(newest.size, np.uint8)
        if encoded is not None and len(objects.indices) > 1:
            shown = carry_mask(objects.mask, encoded.shrunk, newest.shrunk, newest.size)
        for mask in self.carry_masks(newest):
            others = np.where(np.isin(shown, mask), np.uint8(0), shown)
            shown = np.where(mask > 0, mask, others)
        indices = objects.indices[1:].copy()
        since = objects.frames_since_marked + len(self.frames)
        agreement = objects.agreement
        for frame, mask in self.masks:
            new = np.setdiff1d(mask[mask > 0], indices)
            indices = np.append(indices, new)
            named = np.isin(indices, mask)
            age = sum(other.stamp > frame.stamp for other in self.frames)
            since = np.where(named, age, np.pad(since, (0, len(new))))
            agreement = np.where(named, np.float32(1), np.pad(agreement, (0, len(new))))
        return BridgedObjects(shown, indices, since, np.asarray(agreement, np.float32))
