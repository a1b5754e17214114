"""How objects move as a whole, as the velocities of their cells tell.

Single cells of an object do not tell for long where it went: their velocities are noisy, mix with
those of what is beside them, and change when the object turns round. All of them together tell it
well, and it goes on as it went while it is covered. The background is one of the objects.
"""

from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Floats

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class ObjectMotion:
    """How K objects move, and how far they have come."""

    velocity: Floats
    """[K, 2] (x, y) in cells a frame."""
    travelled: Floats
    """[K, 2] (x, y) in cells, since there were objects."""

    def of(self, count: int) -> "ObjectMotion":
        """Motion of so many objects, of which the new ones rest."""
        new = ((0, count - len(self.velocity)), (0, 0))
        return ObjectMotion(np.pad(self.velocity, new), np.pad(self.travelled, new))

    def moved_on(self) -> "ObjectMotion":
        """Motion a frame later, before that frame was looked at."""
        return replace(self, travelled=self.travelled + self.velocity)

    def measured(self, labels: Floats, velocity: Floats, largest: Floats) -> "ObjectMotion":
        """Correct the motion by a frame, each object's as far as it is seen there.

        Args:
            labels: soft labels of the frame's cells [rows, columns, K].
            velocity: of the cells [rows, columns, 2] (x, y), in cells a frame.
            largest: `extents` [K] of objects that are seen as a whole, not below those here.

        """
        weights, extent = np.square(labels), extents(labels)
        means = np.tensordot(weights, velocity, axes=((0, 1), (0, 1)))
        means /= np.maximum(extent, _TINY)[:, None]
        seen = (extent / np.maximum(largest, _TINY))[:, None]
        corrected = self.velocity + seen * (means - self.velocity)
        return replace(self, velocity=corrected.astype(np.float32))


def extents(labels: Floats) -> Floats:
    """How much of a frame is each object's: [K] of soft labels [rows, columns, K], in cells.

    The sum of squares, in which cells count little that may be another's.
    """
    return np.asarray(np.square(labels).sum(axis=(0, 1)), np.float32)
