"""Object masks: what is asked for, and the objects as they are carried from frame to frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Bools, Floats, Mask
from vditrack.bundle.configuration import Propagation
from vditrack.masks.label_propagation import LabelPropagation
from vditrack.masks.soft_labels import cell_labels, mask_from_labels


@dataclass(frozen=True)
class _Anchor:
    """A frame on which objects were marked."""

    features: Floats
    """[rows, columns, D]"""
    labels: Floats
    """[rows, columns, K], which sum to 1 over K."""


class MaskedObjects:
    """The objects of a clip or stream, under the indices with which they were marked.

    Soft labels of cells are what is carried; a mask at the size of the frame is read from them.
    Memory grows with the frames on which objects were marked, not with the others.
    """

    def __init__(self, settings: Propagation) -> None:
        self.indices: Mask = np.zeros(1, np.uint8)
        """Of the labels: 0, the background, and each object's in the order in which they came."""
        self._settings = settings
        self._propagation = LabelPropagation(settings)
        self._anchors: list[_Anchor] = []
        self._earlier = self._anchors
        self._features: Floats = np.zeros((0, 0, 0), np.float32)
        self._labels: Floats = np.zeros((0, 0, 1), np.float32)
        self._carried: Mask = np.zeros((0, 0), np.uint8)
        self._given = self._carried

    @property
    def mask(self) -> Mask:
        """[H, W] of the newest frame, of indices; where it was marked, as it was marked."""
        kept = np.where(np.isin(self._carried, self._given), np.uint8(0), self._carried)
        return np.where(self._given > 0, self._given, kept)

    def advance(
        self, features: Floats, size: tuple[int, int], velocity: Floats | None = None
    ) -> None:
        """Carry the objects into the next frame.

        Args:
            features: its fused features [rows, columns, D].
            size: its (height, width).
            velocity: of its cells [rows, columns, 2] (x, y), in cells a frame, if it is known.

        """
        self._features = features
        self._earlier = self._anchors
        carried = self._propagation.advance(features, velocity)
        nothing = np.ones((*features.shape[:2], 1), np.float32)
        self._labels = carried if self._anchors else nothing
        self._carried = self.indices[mask_from_labels(self._labels, *size)]
        self._given = np.zeros(size, np.uint8)

    def add_masks(self, mask: Mask) -> None:
        """Mark objects on the newest frame.

        An object that the mask names is afterwards where the mask has it, and nowhere else. The
        others stay where they are, but for the pixels that the mask takes.

        Args:
            mask: [H, W] of indices, a checked one; 0 says nothing of a pixel.

        """
        self.indices = np.append(self.indices, np.setdiff1d(mask, self.indices))
        left = np.where(np.isin(self._given, mask), np.uint8(0), self._given)
        self._given = np.where(mask > 0, mask, left)
        named = np.isin(self.indices, self._given) & (self.indices > 0)
        labels = self._marked(named)
        told = _told(self._earlier, _Anchor(self._features, labels), named, self._settings)
        self._propagation.set_labels(labels, told)
        earlier = [
            replace(anchor, labels=known) for anchor, known in zip(self._earlier, told, strict=True)
        ]
        self._anchors = [*earlier, _Anchor(self._features, labels)]

    def _marked(self, named: Bools) -> Floats:
        """Labels of the newest frame, with what was given in the place of what was carried."""
        labels = _widened(self._labels, len(named))
        labels[..., 0] += labels[..., named].sum(axis=2)
        labels[..., named] = 0
        label_of = np.zeros(256, np.uint8)
        label_of[self.indices] = np.arange(len(self.indices))
        shares = cell_labels(label_of[self._given], *labels.shape)
        # The share of a cell that nothing was said of keeps what was carried there.
        labels *= shares[..., :1]
        labels[..., 1:] += shares[..., 1:]
        return labels


def _told(
    earlier: Sequence[_Anchor], newest: _Anchor, named: Bools, settings: Propagation
) -> list[Floats]:
    """Labels of earlier anchors, with objects named in the newest where they had background.

    An object that was there before it was marked was background to them. They would go on saying so
    of all its later cells.
    """
    backward, told = LabelPropagation(settings), list[Floats]()
    backward.advance(newest.features)
    backward.set_labels(newest.labels)
    for anchor in reversed(earlier):
        found = backward.advance(anchor.features) * named
        labels = _widened(anchor.labels, len(named))
        found *= labels[..., :1]
        labels += found
        labels[..., 0] -= found.sum(axis=2)
        told.insert(0, labels)
    return told


def _widened(labels: Floats, count: int) -> Floats:
    """Labels [rows, columns, count], a copy with zeros for those that it does not know."""
    return np.pad(labels, ((0, 0), (0, 0), (0, count - labels.shape[2])))
