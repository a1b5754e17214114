"""Which object a tracked point is on, as masks tell.

Where objects that look the same cross, points slip from one to the other. Masks that are carried by
motion (`vditrack.masks.label_propagation`) do not, and say of a point which object it is on by now.
"""

import numpy as np
from numpy.typing import NDArray


def read_object_ids(
    points: NDArray[np.float32], visible: NDArray[np.bool_], mask: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Read which object each point of a frame is on.

    Args:
        points: [N, 2] (x, y) in pixels of the frame; (0, 0) is the upper-left corner of the
            upper-left pixel.
        visible: [N]; where a point is that is not, is a guess.
        mask: uint8 [H, W] of the frame: indices of objects, 0 for the background.

    Returns:
        [N] the index at each point; 0 where that is not visible, or outside the frame.

    """
    height, width = mask.shape
    column, row = np.floor(np.nan_to_num(points, nan=-1)).astype(np.intp).T
    shown = visible & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found = np.zeros(len(points), np.uint8)
    found[shown] = mask[row[shown], column[shown]]
    return found
