"""Which object each point is on, told by masks that come later than points."""

import numpy as np
from numpy.typing import NDArray

from vditrack.points.object_ids import read_object_ids
from vditrack.streams.realtime import LiveUpdate


class PointObjects:
    """What the newest image that has masks says of each point.

    Points are published at once, masks of an image when the model is done with it.
    """

    def __init__(self) -> None:
        self.reset()

    @property
    def newest(self) -> LiveUpdate | None:
        """Where points were last, if there were any."""
        return self._newest

    def reset(self) -> None:
        """Forget points and objects."""
        self._newest: LiveUpdate | None = None
        self.forget_objects()

    def forget_objects(self) -> None:
        """Know of no object."""
        self._objects: dict[int, int] = {}

    def note(self, update: LiveUpdate) -> None:
        """Note where points are."""
        self._newest = update

    def learn(self, update: LiveUpdate, mask: NDArray[np.uint8]) -> None:
        """Read which object each point is on.

        Args:
            update: where points were in an image.
            mask: uint8 [H, W] of indices of the objects in it, 0 for the background.

        """
        found = read_object_ids(update.points, update.visible, mask)
        self._objects = dict(zip(update.ids.tolist(), found.tolist(), strict=True))

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give the object of each point [N]; 0 for none, and for points that came later."""
        return np.array([self._objects.get(one, 0) for one in ids.tolist()], np.uint8)
