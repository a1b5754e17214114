"""The object that each tracked point is on, read from masks.

Where objects that look the same cross, points slip from one to the other. Masks that are propagated
with motion (`vditrack.masks.label_propagation`) do not, so they tell which object a point is on.
"""

import numpy as np
from numpy.typing import NDArray


def read_object_ids(
    points: NDArray[np.float32], visible: NDArray[np.bool_], mask: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the object that each point of a frame is on.

    Args:
        points: [N, 2] (x, y) in pixels of the frame; (0, 0) is the upper-left corner of the
            upper-left pixel.
        visible: [N]; the position of an invisible point is a guess.
        mask: uint8 [H, W] of the frame: indices of objects, 0 for the background.

    Returns:
        Indices [N] of objects; 0 for points that are invisible or outside the frame.

    """
    height, width = mask.shape
    column, row = np.floor(np.nan_to_num(points, nan=-1)).astype(np.intp).T
    shown = visible & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found = np.zeros(len(points), np.uint8)
    found[shown] = mask[row[shown], column[shown]]
    return found
