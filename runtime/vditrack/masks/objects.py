"""The objects of a clip or stream: masks by object index in, masks by object index out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Bools, Floats, Mask
from vditrack.bundle.configuration import Propagation
from vditrack.masks.label_propagation import LabelPropagation
from vditrack.masks.soft_labels import cell_labels, mask_from_labels


@dataclass(frozen=True)
class _AnnotatedFrame:
    """A frame for which masks were given."""

    features: Floats
    """Features, float32 [rows, columns, D]."""
    labels: Floats
    """Soft labels, float32 [rows, columns, K], which sum to 1 over K."""


class MaskedObjects:
    """Propagates the masks of objects, which keep the indices that they were given.

    Soft labels of cells are propagated, and a mask at frame size is read from them. Memory grows
    with the number of frames for which masks were given, and with no other.
    """

    def __init__(self, settings: Propagation) -> None:
        """Start without objects.

        Args:
            settings: Settings of label propagation, from the bundle's manifest.

        """
        self.indices: Mask = np.zeros(1, np.uint8)
        """Object index of each label, uint8 [K], in the order in which objects were added; the
        first is 0, the background."""
        self._settings = settings
        self._propagation = LabelPropagation(settings)
        self._annotated: list[_AnnotatedFrame] = []
        self._earlier = self._annotated
        self._features: Floats = np.zeros((0, 0, 0), np.float32)
        self._labels: Floats = np.zeros((0, 0, 1), np.float32)
        self._propagated: Mask = np.zeros((0, 0), np.uint8)
        self._given = self._propagated

    @property
    def mask(self) -> Mask:
        """Object index at each pixel of the newest frame, uint8 [H, W].

        Masks that were given for the frame are returned as they were given.
        """
        replaced = np.isin(self._propagated, self._given)
        kept = np.where(replaced, np.uint8(0), self._propagated)
        return np.where(self._given > 0, self._given, kept)

    def advance(
        self, features: Floats, size: tuple[int, int], velocity: Floats | None = None
    ) -> None:
        """Propagate the objects into the next frame.

        Args:
            features: Fused features of the frame, float32 [rows, columns, D].
            size: Height and width of the frame in pixels.
            velocity: Velocities of the cells, float32 [rows, columns, 2] (x, y), in cells a frame,
                if they are known.

        """
        self._features = features
        self._earlier = self._annotated
        propagated = self._propagation.advance(features, velocity)
        background = np.ones((*features.shape[:2], 1), np.float32)
        self._labels = propagated if self._annotated else background
        self._propagated = self.indices[mask_from_labels(self._labels, *size)]
        self._given = np.zeros(size, np.uint8)

    def add_masks(self, mask: Mask) -> None:
        """Set the masks of objects, new or known, on the newest frame.

        An object in the mask is then exactly where the mask has it. Other objects keep their
        pixels, except those that the mask takes.

        Args:
            mask: Object index at each pixel, a checked uint8 [H, W]; 0 leaves a pixel as it is.

        """
        self.indices = np.append(self.indices, np.setdiff1d(mask, self.indices))
        others = np.where(np.isin(self._given, mask), np.uint8(0), self._given)
        self._given = np.where(mask > 0, mask, others)
        given = np.isin(self.indices, self._given) & (self.indices > 0)
        newest = _AnnotatedFrame(self._features, self._labels_with_given(given))
        corrected = _add_to_earlier(self._earlier, newest, given, self._settings)
        self._propagation.set_labels(newest.labels, corrected)
        earlier = [
            replace(frame, labels=labels)
            for frame, labels in zip(self._earlier, corrected, strict=True)
        ]
        self._annotated = [*earlier, newest]

    def _labels_with_given(self, given: Bools) -> Floats:
        """Return the newest frame's labels, those of given objects replaced by their masks.

        Args:
            given: Which labels have a mask on this frame, bool [K].

        """
        labels = _widen(self._labels, len(given))
        labels[..., 0] += labels[..., given].sum(axis=2)
        labels[..., given] = 0
        label_of = np.zeros(256, np.uint8)
        label_of[self.indices] = np.arange(len(self.indices))
        shares = cell_labels(label_of[self._given], *labels.shape)
        # The share of a cell that no given mask covers keeps its propagated labels.
        labels *= shares[..., :1]
        labels[..., 1:] += shares[..., 1:]
        return labels


def _add_to_earlier(
    earlier: Sequence[_AnnotatedFrame],
    newest: _AnnotatedFrame,
    given: Bools,
    settings: Propagation,
) -> list[Floats]:
    """Return the labels of earlier annotated frames, with the given objects added to them.

    An object that was visible before it was given was labelled background in those frames, and
    would lose against them in every later frame. So the given objects are propagated backward, and
    take the place of background.
    """
    backward, corrected = LabelPropagation(settings), list[Floats]()
    backward.advance(newest.features)
    backward.set_labels(newest.labels)
    for frame in reversed(earlier):
        found = backward.advance(frame.features) * given
        labels = _widen(frame.labels, len(given))
        found *= labels[..., :1]
        labels += found
        labels[..., 0] -= found.sum(axis=2)
        corrected.insert(0, labels)
    return corrected


def _widen(labels: Floats, count: int) -> Floats:
    """Return a copy of labels with ``count`` labels, the new ones without shares."""
    return np.pad(labels, ((0, 0), (0, 0), (0, count - labels.shape[2])))
