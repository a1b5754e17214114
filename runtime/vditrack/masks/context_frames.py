"""Frames whose labels are propagated, and the motion of their objects since then."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats, Indices
from vditrack.bundle.configuration import Displacement, Propagation
from vditrack.masks.object_motion import ObjectMotion
from vditrack.masks.soft_labels import remove_label


@dataclass(frozen=True)
class ContextFrame:
    """Features and labels of a frame from which later frames take their labels."""

    features: Floats
    """Features, float32 [rows, columns, D]."""
    velocity: Floats | None
    """Velocities of the cells, float32 [rows, columns, 2] (x, y), in cells a frame; None if
    unknown."""
    labels: Floats
    """Soft labels, float32 [rows, columns, K]. Labels added later have no share in them."""
    motion: ObjectMotion
    """Motion of the K labels in this frame."""
    number: float
    """Number of the frame, counted from 0; a fraction for a frame that was put between two."""
    annotated: bool
    """True if masks were given for this frame."""

    def without(self, label: int) -> "ContextFrame":
        """Return the frame without a label, whose cells become background."""
        if label >= self.labels.shape[2]:
            return self
        return replace(
            self, labels=remove_label(self.labels, label), motion=self.motion.without(label)
        )

    def list_state(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the frame as arrays, whose names are ``name`` and begin with it."""
        state = {
            name: np.array([self.number, self.annotated]),
            f"{name}/features": self.features,
            f"{name}/labels": self.labels,
            **self.motion.list_state(f"{name}/motion"),
        }
        return state if self.velocity is None else {**state, f"{name}/velocity": self.velocity}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]], name: str) -> "ContextFrame":
        """Return the frame that `list_state` described."""
        number, annotated = state[name].tolist()
        return cls(
            features=state[f"{name}/features"],
            velocity=state.get(f"{name}/velocity"),
            labels=state[f"{name}/labels"],
            motion=ObjectMotion.from_state(state, f"{name}/motion"),
            number=number,
            annotated=bool(annotated),
        )

    @cached_property
    def owners(self) -> Indices:
        """The label with the largest share in each cell, intp [rows, columns]."""
        return np.asarray(self.labels.argmax(axis=2), np.intp)


@dataclass(frozen=True)
class MotionPrior:
    """Where the objects of context frames are expected in the newest frame, and how they move."""

    velocity: Floats
    """Velocities of the newest frame's cells, float32 [rows, columns, 2] (x, y), in cells a
    frame."""
    objects: ObjectMotion
    """Motion of the labels, predicted for the newest frame."""
    number: float
    """Number of the newest frame."""
    settings: Propagation
    """Settings of label propagation."""
    displacement: Displacement
    """Settings of the motion prior."""

    def translation_since(self, frame: ContextFrame, label: int) -> Floats:
        """Return the translation of a label since a context frame, [2] (x, y) in cells."""
        translation = self.objects.translation[label] - frame.motion.translation[label]
        return np.asarray(translation, np.float32)

    def radius(self, frame: ContextFrame) -> float:
        """Return the radius in cells around its predicted place in which a label is expected."""
        radius = self.displacement.slack + self.displacement.drift * (self.number - frame.number)
        return min(radius, self.settings.radius)

    def search_radius(self, frame: ContextFrame, label: int) -> float:
        """Return the radius in cells around its predicted place in which a label is searched.

        The background is searched farther: background that is uncovered was never seen, and looks
        like the background next to it.
        """
        radius = self.radius(frame)
        return radius if label else min(radius + self.displacement.slack, self.settings.radius)

    @property
    def falloff(self) -> float:
        """The penalty on a dot product at the distance `radius`.

        With several objects the predicted place tells similar ones apart. A single object gets no
        penalty: its appearance gives a better outline, since it may shrink.
        """
        several = len(self.objects.velocity) > 2
        return self.displacement.falloff if several else 0.0
