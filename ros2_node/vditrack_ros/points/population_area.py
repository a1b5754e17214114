"""Where points of the population are put: a region of interest and a mask. Needs no ROS."""

from typing import Any

import cv2
import numpy as np

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.ros_messages.images import view_pixels
from vditrack_ros.parameters.settings import Region

Size = tuple[int, int]
"""(height, width)."""

_ENCODINGS = ("mono8", "8UC1")


class PopulationArea:
    """The part of the image in which points are put."""

    def __init__(self) -> None:
        """Start without a mask."""
        self._mask: Mask | None = None
        self._key: tuple[Region, int] | None = None
        self._mask_count = 0

    def set_mask(self, mask: Mask) -> None:
        """Put points only where the mask is not 0.

        Args:
            mask: uint8 [h, w]; it is scaled to the size of the images.

        """
        self._mask, self._mask_count = mask, self._mask_count + 1

    def take_change(self, region: Region) -> bool:
        """Return whether the region or the mask has changed since the last call."""
        key, before = (region, self._mask_count), self._key
        self._key = key
        return before is not None and before != key

    def build(self, size: Size, region: Region) -> Mask | None:
        """Return where points are put, uint8 [H, W], not 0 there; None if it is everywhere.

        Args:
            size: (height, width) of the image.
            region: of interest.

        """
        height, width = size
        left, top, right, bottom = _locate_region(size, region)
        if self._mask is None and (left, top, right, bottom) == (0, 0, width, height):
            return None
        allowed = np.zeros(size, np.uint8)
        allowed[top:bottom, left:right] = 255
        if self._mask is not None:
            scaled = cv2.resize(self._mask, (width, height), interpolation=cv2.INTER_NEAREST)
            allowed[scaled == 0] = 0
        return allowed


def _locate_region(size: Size, region: Region) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a region in pixels of an image, clipped to it."""
    height, width = size
    unit = np.array([width, height] if max(region) <= 1 else [1, 1])
    corner, extent = np.array(region[:2]) * unit, np.array(region[2:]) * unit
    low = np.clip(np.rint(corner), 0, (width, height)).astype(int)
    high = np.clip(np.rint(corner + extent), 0, (width, height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def describe_excess(size: Size, region: Region) -> str:
    """Return which part of a region is beyond an image, as a sentence; empty if none is.

    Args:
        size: (height, width) of the image.
        region: of interest.

    """
    height, width = size
    x, y, extent_x, extent_y = region
    if max(region) <= 1 or (x + extent_x <= width and y + extent_y <= height):
        return ""
    left, top, right, bottom = _locate_region(size, region)
    is_outside = left == right or top == bottom
    result = "no points are put anywhere" if is_outside else "only the part inside is used"
    values = ", ".join(f"{part:g}" for part in region)
    return (
        f"region [{values}] reaches beyond the image, {width} x {height} pixels: {result}. Set "
        "region to x, y, width and height inside the image."
    )


def read_population_mask(message: Any) -> Mask:  # noqa: ANN401
    """Return the mask uint8 [h, w] of a sensor_msgs/Image on `~/population_mask`.

    Raises:
        InputError: the encoding is another than mono8, or size, step and data are inconsistent.

    """
    if message.encoding not in _ENCODINGS:
        raise InputError(
            f"~/population_mask has the encoding {message.encoding!r}. Publish mono8: 0 where no "
            "points are put, another value where they are."
        )
    if not message.height or not message.width:
        raise InputError("~/population_mask has no pixels. Publish a mask of the images' size.")
    return np.ascontiguousarray(view_pixels(message, np.dtype("u1"))[..., 0])
