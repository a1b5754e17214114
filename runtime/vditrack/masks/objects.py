"""The objects of a clip or stream: masks by object index in, masks by object index out."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Ints, Mask
from vditrack.bundle.configuration import Propagation
from vditrack.masks.label_propagation import LabelPropagation
from vditrack.masks.soft_labels import cell_labels, mask_from_labels, remove_label


@dataclass(frozen=True)
class _AnnotatedFrame:
    """A frame for which masks were given."""

    features: Floats
    """Features, float32 [rows, columns, D]."""
    labels: Floats
    """Soft labels, float32 [rows, columns, K], which sum to 1 over K."""
    given: frozenset[int]
    """Indices of the objects whose masks were given for this frame."""


class MaskedObjects:
    """Propagates the masks of objects, which keep the indices that they were given.

    Soft labels of cells are propagated, and a mask at frame size is read from them. Of the frames
    for which masks were given, the last ``settings.references`` of each object are kept.
    """

    def __init__(self, settings: Propagation, threads: int | None = None) -> None:
        """Start without objects.

        Args:
            settings: Settings of label propagation, from the bundle's manifest.
            threads: Most threads that search for a label; None for one on each core.

        """
        self.indices: Mask = np.zeros(1, np.uint8)
        """Object index of each label, uint8 [K], in the order in which objects were added; the
        first is 0, the background."""
        self._settings = settings
        self._propagation = LabelPropagation(settings, threads)
        self._annotated: list[_AnnotatedFrame] = []
        self._earlier = self._annotated
        self._features: Floats = np.zeros((0, 0, 0), np.float32)
        self._labels: Floats = np.zeros((0, 0, 1), np.float32)
        self._size = (0, 0)
        self._given: Mask | None = None
        self._frames_since_marked: Ints = np.zeros(1, np.int64)

    def copy(self) -> "MaskedObjects":
        """Return objects with the same state, which share its arrays."""
        other = copy(self)
        other._propagation = self._propagation.copy()
        return other

    def list_state(self) -> dict[str, NDArray[Any]]:
        """Return all that later frames depend on as named arrays, which are not copies."""
        given = {f"given/{n}": sorted(frame.given) for n, frame in enumerate(self._annotated)}
        return {
            "indices": self.indices,
            "frames_since_marked": self._frames_since_marked,
            **{name: np.array(indices, np.uint8) for name, indices in given.items()},
            **self._propagation.list_state(),
        }

    def restore_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the state of other objects with the same settings, before the next frame.

        Args:
            state: of `list_state`.

        """
        self.indices = state["indices"]
        self._frames_since_marked = state["frames_since_marked"]
        self._propagation.restore_state(state)
        self._annotated = [
            _AnnotatedFrame(frame.features, frame.labels, frozenset(state[f"given/{n}"].tolist()))
            for n, frame in enumerate(self._propagation.annotated)
        ]

    @property
    def frames_since_marked(self) -> Ints:
        """Frames since a mask last named each object, int64 [K - 1], in the order of `indices`."""
        return self._frames_since_marked[1:].copy()

    @property
    def mask(self) -> Mask:
        """Object index at each pixel of the newest frame, uint8 [H, W].

        Masks that were given for the frame are returned as they were given.
        """
        index_of = np.zeros(256, np.uint8)
        index_of[: len(self.indices)] = self.indices
        propagated: Mask = cv2.LUT(mask_from_labels(self._labels, *self._size), index_of)
        if self._given is None:
            return propagated
        kept = np.where(np.isin(propagated, self._given), np.uint8(0), propagated)
        return np.where(self._given > 0, self._given, kept)

    @property
    def agreement(self) -> Floats:
        """Mean share of each object in the cells that it owns, float32 [K - 1], as in `indices`.

        It is 1 for an object whose mask was given for the frame, and 0 for one that owns no cell.
        """
        labels, given = self._labels, () if self._given is None else np.unique(self._given)
        owners = labels.argmax(axis=2)
        shares = np.zeros(len(self.indices), np.float32)
        for label in range(1, len(self.indices)):
            owned = owners == label
            if self.indices[label] in given:
                shares[label] = 1
            elif owned.any():
                shares[label] = labels[owned, label].mean()
        return shares[1:]

    @property
    def nbytes(self) -> int:
        """Memory of the newest frame's labels and given masks, in bytes."""
        return self._labels.nbytes + (0 if self._given is None else self._given.nbytes)

    def advance(
        self,
        features: Floats,
        size: tuple[int, int],
        velocity: Floats | None = None,
        step: float = 1.0,
        frames: int = 1,
    ) -> None:
        """Propagate the objects into the next frame.

        Args:
            features: Fused features of the frame, float32 [rows, columns, D].
            size: Height and width of the frame in pixels.
            velocity: Velocities of the cells, float32 [rows, columns, 2] (x, y), in cells a frame,
                if they are known.
            step: Time since the features before, in intervals of the velocity.
            frames: Frames of the stream since the features before.

        """
        self._drop_annotated()
        self._features = features
        self._earlier = self._annotated
        propagated = self._propagation.advance(features, velocity, step)
        background = np.ones((*features.shape[:2], 1), np.float32)
        self._labels = propagated if self._annotated else background
        self._size, self._given = size, None
        self._frames_since_marked = self._frames_since_marked + frames

    def add_masks(self, mask: Mask) -> None:
        """Set the masks of objects, new or known, on the newest frame.

        An object in the mask is then exactly where the mask has it. Other objects keep their
        pixels, except those that the mask takes.

        Args:
            mask: Object index at each pixel, a checked uint8 [H, W]; 0 leaves a pixel as it is.

        """
        self.indices = np.append(self.indices, np.setdiff1d(mask, self.indices))
        before = self._frames_since_marked
        frames = np.pad(before, (0, len(self.indices) - len(before)))
        self._frames_since_marked = np.where(np.isin(self.indices, mask), 0, frames)
        known = np.zeros(self._size, np.uint8) if self._given is None else self._given
        others = np.where(np.isin(known, mask), np.uint8(0), known)
        self._given = np.where(mask > 0, mask, others)
        given = np.isin(self.indices, self._given) & (self.indices > 0)
        named = frozenset(self.indices[given].tolist())
        newest = _AnnotatedFrame(self._features, self._labels_with_given(given, self._given), named)
        corrected = _add_to_earlier(self._earlier, newest, given, self._settings)
        self._propagation.set_labels(newest.labels, corrected)
        earlier = [
            replace(frame, labels=labels)
            for frame, labels in zip(self._earlier, corrected, strict=True)
        ]
        self._annotated = [*earlier, newest]

    def remove(self, index: int) -> bool:
        """Forget an object, whose pixels become background; return False if there is none such."""
        label = int(np.flatnonzero(self.indices == index)[0]) if index in self.indices[1:] else 0
        if not label:
            return False
        self.indices = np.delete(self.indices, label)
        self._frames_since_marked = np.delete(self._frames_since_marked, label)
        if label < self._labels.shape[2]:
            self._labels = remove_label(self._labels, label)
        if self._given is not None:
            self._given = np.where(self._given == index, np.uint8(0), self._given)
        # Both lists may be one.
        is_same = self._earlier is self._annotated
        self._annotated = [_without(frame, index, label) for frame in self._annotated]
        earlier = [_without(frame, index, label) for frame in self._earlier]
        self._earlier = self._annotated if is_same else earlier
        self._propagation.remove_label(label)
        return True

    def _drop_annotated(self) -> None:
        """Keep of each object the last frames with its mask; drop frames that no object needs."""
        left = dict.fromkeys(self.indices[1:].tolist(), self._settings.references)
        kept: list[bool] = []
        for frame in reversed(self._annotated):
            kept.insert(0, any(left[index] > 0 for index in frame.given))
            for index in frame.given:
                left[index] -= 1
        if not all(kept):
            self._propagation.keep_annotated(kept)
            frames = zip(self._annotated, kept, strict=True)
            self._annotated = [frame for frame, stays in frames if stays]

    def _labels_with_given(self, given: Bools, masks: Mask) -> Floats:
        """Return the newest frame's labels, those of given objects replaced by their masks.

        Args:
            given: Which labels have a mask on this frame, bool [K].
            masks: The masks given for this frame, uint8 [H, W].

        """
        labels = _widen(self._labels, len(given))
        labels[..., 0] += labels[..., given].sum(axis=2)
        labels[..., given] = 0
        label_of = np.zeros(256, np.uint8)
        label_of[self.indices] = np.arange(len(self.indices))
        shares = cell_labels(label_of[masks], *labels.shape)
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


def _without(frame: _AnnotatedFrame, index: int, label: int) -> _AnnotatedFrame:
    """Return an annotated frame without an object; its label becomes background."""
    labels = frame.labels
    if label < labels.shape[2]:
        labels = remove_label(labels, label)
    return replace(frame, labels=labels, given=frame.given - {index})


def _widen(labels: Floats, count: int) -> Floats:
    """Return a copy of labels with ``count`` labels, the new ones without shares."""
    return np.pad(labels, ((0, 0), (0, 0), (0, count - labels.shape[2])))
