"""Labels of cells, carried from frame to frame by matching features (TED, arXiv 2512.02339).

A cell of a new frame takes its label from the cells that look most like it among those nearby in
the context: all frames that were marked, and the last few. The paper follows the usual convention
of label propagation, of which the first frame and a queue of frames are the simplest case.

A label is soft: what share of a cell is whose. Masks and keypoints become such labels, and are read
from them again.

Where the velocity of cells is known, what is remembered of an object moves on with it
(`vditrack.masks.object_motion`), and cells are compared by whether they move as it does.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vditrack.arrays import Floats
from vditrack.bundle.configuration import Propagation
from vditrack.masks.cell_matching import _carried, _Frame, _Moving
from vditrack.masks.object_motion import ObjectMotion, extents


class LabelPropagation:
    """Labels of cells carried from frame to frame.

    Marked frames are kept for good, of the others the last ``settings.context``; frames from before
    anything was marked tell nothing. The work of a frame is proportional to its context.
    """

    def __init__(self, settings: Propagation) -> None:
        self._settings = settings
        self._marked: list[_Frame] = []
        self._recent: deque[_Frame] = deque(maxlen=settings.context)
        self._extents: deque[Floats] = deque(maxlen=settings.context)
        nothing = np.zeros((0, 2), np.float32)
        self._motion = ObjectMotion(nothing, nothing)
        self._number = -1

    def advance(self, features: Floats, velocity: Floats | None = None) -> Floats:
        """Carry the labels into the next frame.

        Args:
            features: [rows, columns, D] of any length, as they go into dot products; they are kept
                without a copy.
            velocity: of the cells [rows, columns, 2] (x, y) in cells a frame, where the settings
                have a ``displacement``. What is remembered of a label has then moved as the label
                did since, and its cells go by so much faster as the label does. To products of
                features is added λ² x exp(-d²/2) for velocities that differ by d x ``spread``.
                What is far from there counts less by the ``falloff``, where there are several
                objects, and by ``uncovered``.

        Returns:
            Soft labels [rows, columns, K] of the frame, the background first, read-only; they sum
            to 1 over K. Before anything was marked K is 0.

        """
        self._number += 1
        self._motion = self._motion.moved_on()
        moving = None
        if velocity is not None and self._settings.displacement is not None:
            how = self._settings.displacement
            moving = _Moving(velocity, self._motion, self._number, self._settings, how)
        labels = _carried(features, self._context, self._settings, moving)
        labels.flags.writeable = False
        self._extents.append(extents(labels))
        self._measure(labels, velocity)
        self._recent.append(
            _Frame(features, velocity, labels, self._motion, self._number, marked=False)
        )
        return labels

    def set_labels(self, labels: Floats, earlier: Sequence[Floats] | None = None) -> None:
        """Put labels in the place of those that the newest frame got, and keep that frame for good.

        Args:
            labels: [rows, columns, K], the background first, which sum to 1 over K: all labels that
                there were, and further ones behind them. In earlier frames these are nowhere.
            earlier: what the frames that were marked before, in order, are to have instead of their
                labels. All other frames, from before they could be told, are forgotten.

        """
        newest = self._recent[-1]
        if newest.marked:
            self._marked.pop()
        self._motion, self._extents[-1] = self._motion.of(labels.shape[2]), extents(labels)
        self._measure(labels, newest.velocity)
        newest = replace(newest, labels=labels, motion=self._motion, marked=True)
        self._recent[-1] = newest
        if earlier is not None:
            self._marked = [
                replace(frame, labels=told, motion=frame.motion.of(told.shape[2]))
                for frame, told in zip(self._marked, earlier, strict=True)
            ]
            self._recent = deque([newest], self._settings.context)
        self._marked.append(newest)

    def _measure(self, labels: Floats, velocity: Floats | None) -> None:
        """Correct the motion of labels by the newest frame."""
        if velocity is not None and labels.size:
            largest = np.max([_padded(known, labels.shape[2]) for known in self._extents], axis=0)
            self._motion = self._motion.measured(labels, velocity, largest)

    @property
    def _context(self) -> list[_Frame]:
        recent = [frame for frame in self._recent if not frame.marked and frame.labels.shape[2]]
        return [*self._marked, *recent]


def _padded(values: Floats, count: int) -> Floats:
    """Values [K, ...] with zeros for labels that came later."""
    new = np.zeros((count - len(values), *values.shape[1:]), np.float32)
    return np.concatenate([values, new])
