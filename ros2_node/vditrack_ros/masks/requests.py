"""Masks that others mark objects with, and those that wait for their image. Needs no ROS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.input_checks import check_mask

_KINDS = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}
"""NumPy's kind of each encoding; the second name is that of cv_bridge."""
_HIGHEST = 255
_MOST_WAITING = 10
"""Masks that may wait for their images at a time."""


class MarkError(InputError):
    """A mask marks nothing."""

    def __init__(self, reason: str, text: str) -> None:
        """Refuse a mask.

        Args:
            reason: one of `vditrack_ros.counters.MARK_REASONS`.
            text: says it to the user.

        """
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Mark:
    """Objects to be marked on an image."""

    stamp: int
    """Nanoseconds, of the image; 0 for the newest one."""
    mask: Mask
    """[H, W] of indices, at least one of them above 0."""

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a mask that is none for an image of (height, width).

        Raises:
            MarkError: the sizes differ.

        """
        _check(self.mask, size, "size")


class WaitingMarks:
    """Masks in the order in which they came, until their image has come."""

    def __init__(self) -> None:
        self._marks: list[Mark] = []

    def __len__(self) -> int:
        return len(self._marks)

    def clear(self) -> None:
        """Forget all."""
        self._marks.clear()

    def add(self, mark: Mark) -> Mark | None:
        """Let a mask wait; where too many do, the one that came first is given up for it."""
        self._marks.append(mark)
        return self._marks.pop(0) if len(self._marks) > _MOST_WAITING else None

    def has(self, stamp: int) -> bool:
        """Whether a mask is of the image with this stamp."""
        return any(mark.stamp == stamp for mark in self._marks)

    def take(self, first: int, last: int) -> list[Mark]:
        """Take out those of stamps from the first to the last."""
        return self._taken(lambda mark: first <= mark.stamp <= last)

    def take_after(self, stamp: int) -> list[Mark]:
        """Take out those of later stamps."""
        return self._taken(lambda mark: mark.stamp > stamp)

    def _taken(self, chosen: Callable[[Mark], bool]) -> list[Mark]:
        taken = [mark for mark in self._marks if chosen(mark)]
        self._marks = [mark for mark in self._marks if not chosen(mark)]
        return taken


def read_mask(message: Any) -> Mask:  # noqa: ANN401
    """Give the mask [H, W] of object indices in a sensor_msgs/Image.

    Args:
        message: of mono8 or mono16.

    Raises:
        MarkError: it is of another encoding, its data does not fit what it says of them, it has
            an index above 255, or marks no object.

    """
    kind = _KINDS.get(message.encoding)
    if kind is None:
        raise MarkError(
            "encoding",
            f"~/mask is {message.encoding or 'of no encoding'}; give indices of objects as mono8 "
            "or mono16.",
        )
    indices = _pixels(message, np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<"))
    highest = int(indices.max(initial=0))
    if highest > _HIGHEST:
        raise MarkError(
            "indices",
            f"~/mask has the index {highest}; there may be {_HIGHEST} objects, 1 to {_HIGHEST}. "
            "Number them anew.",
        )
    mask = indices.astype(np.uint8, copy=False)
    _check(mask, (message.height, message.width), "empty")
    return mask


def crowded_error() -> MarkError:
    """Too many masks wait."""
    return MarkError(
        "crowded",
        f"More than {_MOST_WAITING} masks wait for their images: the one that came first is given "
        "up. Mark an object once, not in every image.",
    )


def ahead_error(seconds: float) -> MarkError:
    """No image will have the stamp of a mask that is so much ahead of them."""
    return MarkError(
        "ahead",
        f"~/mask is {seconds:.1f} s ahead of the images, more than max_gap. Give it the stamp of "
        "its image, or none.",
    )


def _pixels(message: Any, kind: np.dtype[Any]) -> NDArray[Any]:  # noqa: ANN401
    """View the data as [H, W], without a copy."""
    data, row = np.frombuffer(message.data, np.uint8), message.width * kind.itemsize
    # Padding after the last row is nobody's loss.
    needed = message.step * (message.height - 1) + row
    if message.step < row or len(data) < needed:
        raise MarkError(
            "malformed",
            f"~/mask ({message.encoding}, {message.width} x {message.height}, step {message.step}) "
            f"has {len(data)} bytes of data, which does not fit together.",
        )
    shape, strides = (message.height, message.width), (message.step, kind.itemsize)
    return np.ndarray(shape, kind, data, strides=strides)


def _check(mask: Mask, size: tuple[int, int], reason: str) -> None:
    try:
        check_mask(mask, size, "~/mask")
    except InputError as error:
        raise MarkError(reason, str(error)) from error
