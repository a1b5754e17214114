"""Velocity and accumulated translation of whole objects, estimated from the velocities of cells.

The velocity of a single cell is noisy, is mixed with that of its neighbours, and changes when the
object turns. The mean over all cells of an object is stable, and an occluded object keeps its last
velocity. The background is treated as one of the objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats

_TINY = np.finfo(np.float32).tiny
"""Smallest normal float32, which avoids a division by zero."""


@dataclass(frozen=True)
class ObjectMotion:
    """Velocity and accumulated translation of K objects."""

    velocity: Floats
    """Velocities, float32 [K, 2] (x, y), in cells a frame."""
    translation: Floats
    """Translations since the first frame, float32 [K, 2] (x, y), in cells."""

    def list_state(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the motion as arrays, whose names begin with ``name``."""
        return {f"{name}/velocity": self.velocity, f"{name}/translation": self.translation}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]], name: str) -> "ObjectMotion":
        """Return the motion that `list_state` described."""
        return cls(state[f"{name}/velocity"], state[f"{name}/translation"])

    def extend(self, count: int) -> "ObjectMotion":
        """Return the motion of ``count`` objects, of which the new ones are at rest."""
        new = ((0, count - len(self.velocity)), (0, 0))
        return ObjectMotion(np.pad(self.velocity, new), np.pad(self.translation, new))

    def without(self, label: int) -> "ObjectMotion":
        """Return the motion of all objects but one."""
        kept = np.delete(self.velocity, label, axis=0), np.delete(self.translation, label, axis=0)
        return ObjectMotion(*kept)

    def predict(self, step: float = 1.0) -> "ObjectMotion":
        """Return the motion one frame later, or a share of a frame, at constant velocity."""
        translation = self.translation + np.float32(step) * self.velocity
        return replace(self, translation=translation)

    def update(self, labels: Floats, velocity: Floats, largest: Floats) -> "ObjectMotion":
        """Return the motion corrected by the measurements of one frame.

        The correction of an object is weighted by the share of it that is visible in the frame.

        Args:
            labels: Soft labels of the cells, float32 [rows, columns, K].
            velocity: Velocities of the cells, float32 [rows, columns, 2] (x, y), in cells a frame.
            largest: Areas (`measure_areas`) of the objects when wholly visible, float32 [K], not
                below those of ``labels``.

        """
        weights, area = np.square(labels), measure_areas(labels)
        means = np.tensordot(weights, velocity, axes=((0, 1), (0, 1)))
        means /= np.maximum(area, _TINY)[:, None]
        visible = (area / np.maximum(largest, _TINY))[:, None]
        corrected = self.velocity + visible * (means - self.velocity)
        return replace(self, velocity=corrected.astype(np.float32))


def measure_areas(labels: Floats) -> Floats:
    """Return the area of each object in cells, float32 [K].

    The area is the sum of squared shares, so cells shared by several objects count little.

    Args:
        labels: Soft labels of the cells, float32 [rows, columns, K].

    """
    return np.asarray(np.square(labels).sum(axis=(0, 1)), np.float32)
