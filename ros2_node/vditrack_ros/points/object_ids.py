"""Assignment of points to objects from masks, which are published later than points."""

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Ints, Mask
from vditrack.points.object_ids import read_object_ids
from vditrack.streams.realtime import LiveUpdate


class PointObjectIds:
    """The object of each point, read from the newest image with masks."""

    def __init__(self) -> None:
        """Start without points and objects."""
        self.reset()

    @property
    def latest_points(self) -> LiveUpdate | None:
        """The newest update of the points; None if points are not tracked."""
        return self._latest_points

    def reset(self) -> None:
        """Discard points and objects."""
        self._latest_points: LiveUpdate | None = None
        self.clear_objects()

    def clear_objects(self) -> None:
        """Discard the objects of all points."""
        self._object_of_id: dict[int, int] = {}

    def set_points(self, update: LiveUpdate) -> None:
        """Store the newest update of the points."""
        self._latest_points = update

    def update_from_mask(self, update: LiveUpdate, mask: Mask) -> None:
        """Assign each point to the object at its position.

        Args:
            update: the points in an image.
            mask: uint8 [H, W] object indices in the same image, 0 for the background.

        """
        objects = read_object_ids(update.points, update.visible, mask)
        self._object_of_id = dict(zip(update.ids.tolist(), objects.tolist(), strict=True))

    def look_up(self, ids: Ints) -> NDArray[np.uint8]:
        """Return the object of each point, uint8 [N]; 0 for none, and for newer points.

        Args:
            ids: of the points [N].

        """
        return np.array([self._object_of_id.get(one, 0) for one in ids.tolist()], np.uint8)
