"""Label propagation through a clip or stream by matching features (TED, arXiv 2512.02339).

Each cell of a new frame takes its label from the most similar cells nearby in the context frames:
all annotated frames, and the last few others. The usual convention of the paper, the first frame
and a queue of frames, is the case of one annotated frame.

Labels are soft: the share of a cell that belongs to each object. `vditrack.masks.soft_labels`
converts between them and masks.

Where the velocities of cells are known, cells are searched where their object has moved to since
(`vditrack.masks.object_motion`), and are compared by motion as well as by features
(`vditrack.masks.context_frames.MotionPrior`).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import count, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats
from vditrack.bundle.configuration import Propagation
from vditrack.masks.cell_matching import propagate_labels
from vditrack.masks.context_frames import ContextFrame, MotionPrior
from vditrack.masks.object_motion import ObjectMotion, measure_areas


class LabelPropagation:
    """Propagates soft labels of cells from frame to frame.

    Annotated frames are kept until `keep_annotated` drops them, and the last ``settings.context``
    of the others. Frames before the first annotated one have no labels and are not searched. The
    work of a frame is proportional to the number of context frames.
    """

    def __init__(self, settings: Propagation, threads: int | None = None) -> None:
        """Start without frames.

        Args:
            settings: Settings of label propagation, from the bundle's manifest.
            threads: Most threads that search for a label; None for one on each core.

        """
        self._settings, self._threads = settings, threads
        self._annotated: list[ContextFrame] = []
        self._recent: deque[ContextFrame] = deque(maxlen=settings.context)
        self._areas: deque[Floats] = deque(maxlen=settings.context)
        nothing = np.zeros((0, 2), np.float32)
        self._motion = ObjectMotion(nothing, nothing)
        self._number = -1.0

    def copy(self) -> "LabelPropagation":
        """Return a propagation with the same state, which shares its arrays."""
        other = copy(self)
        other._annotated = list(self._annotated)
        other._recent, other._areas = self._recent.copy(), self._areas.copy()
        return other

    def list_state(self) -> dict[str, NDArray[Any]]:
        """Return all that later frames depend on as named arrays, which are not copies."""
        state = {"number": np.array(self._number), **self._motion.list_state("motion")}
        state.update({f"area/{n}": area for n, area in enumerate(self._areas)})
        for kind, frames in (("annotated", self._annotated), ("recent", self._recent)):
            for n, frame in enumerate(frames):
                state.update(frame.list_state(f"{kind}/{n}"))
        return state

    def restore_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the state of another propagation with the same settings, as `list_state` has it."""
        self._number = state["number"].item()
        self._motion = ObjectMotion.from_state(state, "motion")
        self._areas.extend(state[name] for name in _numbered(state, "area"))
        for kind, frames in (("annotated", self._annotated), ("recent", self._recent)):
            frames.extend(ContextFrame.from_state(state, name) for name in _numbered(state, kind))

    @property
    def annotated(self) -> Sequence[ContextFrame]:
        """The annotated frames that are kept, in order."""
        return self._annotated

    def advance(
        self, features: Floats, velocity: Floats | None = None, step: float = 1.0
    ) -> Floats:
        """Propagate the labels into the next frame.

        Args:
            features: Features of the frame, float32 [rows, columns, D], compared by dot products
                as they are. They are kept without a copy.
            velocity: Velocities of the cells, float32 [rows, columns, 2] (x, y), in cells a frame.
                They are used if the settings have a ``displacement``; see `MotionPrior`.
            step: Time since the frame before, in frames.

        Returns:
            Soft labels of the frame, float32 [rows, columns, K], read-only, the background first.
            They sum to 1 over K. K is 0 before the first annotated frame.

        """
        self._number += step
        self._motion = self._motion.predict(step)
        prior = None
        if velocity is not None and self._settings.displacement is not None:
            displacement = self._settings.displacement
            prior = MotionPrior(velocity, self._motion, self._number, self._settings, displacement)
        labels = propagate_labels(features, self._context, self._settings, prior, self._threads)
        labels.flags.writeable = False
        self._areas.append(measure_areas(labels))
        self._update_motion(labels, velocity)
        self._recent.append(
            ContextFrame(features, velocity, labels, self._motion, self._number, annotated=False)
        )
        return labels

    def set_labels(self, labels: Floats, earlier: Sequence[Floats] | None = None) -> None:
        """Replace the labels of the newest frame, and keep the frame as an annotated one.

        Args:
            labels: Soft labels, float32 [rows, columns, K], the background first, which sum to 1
                over K: all labels so far, with new ones behind them. New labels have no share in
                earlier frames.
            earlier: Labels that replace those of the earlier annotated frames, in order. All other
                frames are then forgotten, since their labels lack the new objects.

        """
        newest = self._recent[-1]
        if newest.annotated:
            self._annotated.pop()
        self._motion = self._motion.extend(labels.shape[2])
        self._areas[-1] = measure_areas(labels)
        self._update_motion(labels, newest.velocity)
        newest = replace(newest, labels=labels, motion=self._motion, annotated=True)
        self._recent[-1] = newest
        if earlier is not None:
            self._annotated = [
                replace(frame, labels=replaced, motion=frame.motion.extend(replaced.shape[2]))
                for frame, replaced in zip(self._annotated, earlier, strict=True)
            ]
            self._recent = deque([newest], self._settings.context)
        self._annotated.append(newest)

    def keep_annotated(self, kept: Sequence[bool]) -> None:
        """Drop annotated frames.

        Args:
            kept: For each annotated frame, in order, whether it stays.

        """
        frames = list(zip(self._annotated, kept, strict=True))
        self._annotated = [frame for frame, stays in frames if stays]
        dropped = {frame.number for frame, stays in frames if not stays}
        for place, frame in enumerate(self._recent):
            if frame.number in dropped:
                # It still counts as one of the last frames.
                self._recent[place] = replace(frame, annotated=False)

    def remove_label(self, label: int) -> None:
        """Forget a label, from 1 to K - 1: its cells become background in all frames."""
        self._annotated = [frame.without(label) for frame in self._annotated]
        self._recent = deque((frame.without(label) for frame in self._recent), self._recent.maxlen)
        areas = (np.delete(area, label) if label < len(area) else area for area in self._areas)
        self._areas = deque(areas, self._areas.maxlen)
        if label < len(self._motion.velocity):
            self._motion = self._motion.without(label)

    def _update_motion(self, labels: Floats, velocity: Floats | None) -> None:
        """Correct the motion of the labels by the newest frame."""
        if velocity is not None and labels.size:
            count = labels.shape[2]
            # Labels that came later have no area in earlier frames.
            areas = [np.pad(area, (0, count - len(area))) for area in self._areas]
            self._motion = self._motion.update(labels, velocity, np.max(areas, axis=0))

    @property
    def _context(self) -> list[ContextFrame]:
        recent = [frame for frame in self._recent if not frame.annotated and frame.labels.shape[2]]
        return [*self._annotated, *recent]


def _numbered(state: Mapping[str, NDArray[Any]], kind: str) -> Iterator[str]:
    """Yield the names ``kind/0``, ``kind/1``, ... as long as the state has them."""
    return takewhile(state.__contains__, (f"{kind}/{n}" for n in count()))
