"""Requests to track objects or to forget them, and the queue of those that wait for their image.

Needs no ROS.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.input_checks.arrays import check_mask
from vditrack.ros_messages.images import view_pixels

_DTYPES = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}
"""Pixel type of each supported encoding; cv_bridge uses the names with C1."""
_MAX_INDEX = 255
_MAX_WAITING = 10
"""Maximum number of requests that wait for their images."""


class MaskRequestError(InputError):
    """A mask request is refused."""

    def __init__(self, reason: str, text: str) -> None:
        """Create the error.

        Args:
            reason: one of `vditrack_ros.counters.MASK_REFUSAL_REASONS`.
            text: the message for the user.

        """
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Box:
    """A box around an object."""

    corners: tuple[float, float, float, float]
    """(x0, y0, x1, y1) in pixels of the image."""
    index: int
    """Index of the object, from 1 to 255."""


@dataclass(frozen=True)
class MaskRequest:
    """Objects to track from an image on, or an object to forget."""

    stamp: int
    """Stamp of the image in nanoseconds; 0 for the newest image."""
    mask: Mask | None = None
    """Object indices, uint8 [H, W], at least one of them above 0; None if there is no mask."""
    boxes: tuple[Box, ...] = ()
    """Boxes around objects."""
    removed: int = 0
    """Index of an object to forget; 0 for none."""
    topic: str = "~/mask"
    """Topic or service by which it came, for messages."""

    @property
    def indices(self) -> list[int]:
        """Indices of the objects to track, those of the mask first."""
        in_mask = [] if self.mask is None else np.unique(self.mask[self.mask > 0]).tolist()
        return [*in_mask, *(box.index for box in self.boxes)]


class MaskRequestQueue:
    """The requests that wait for their image, in the order of arrival."""

    def __init__(self) -> None:
        """Start empty."""
        self._requests: list[MaskRequest] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[MaskRequest]:
        return iter(self._requests)

    def clear(self) -> None:
        """Discard all requests."""
        self._requests.clear()

    def add(self, request: MaskRequest) -> MaskRequest | None:
        """Append a request; if the queue is too long, remove and return the oldest.

        Before that, requests are removed that later ones replace.
        """
        self._requests.append(request)
        if len(self._requests) > _MAX_WAITING:
            self._requests = drop_superseded(self._requests)
        return self._requests.pop(0) if len(self._requests) > _MAX_WAITING else None

    def has(self, stamp: int) -> bool:
        """Return whether a request has this stamp, in nanoseconds."""
        return any(request.stamp == stamp for request in self._requests)

    def take_between(self, first: int, last: int) -> list[MaskRequest]:
        """Remove and return the requests with stamps from first to last, in nanoseconds."""
        return self._take(lambda request: first <= request.stamp <= last)

    def take_after(self, stamp: int) -> list[MaskRequest]:
        """Remove and return the requests with later stamps, in nanoseconds."""
        return self._take(lambda request: request.stamp > stamp)

    def _take(self, is_wanted: Callable[[MaskRequest], bool]) -> list[MaskRequest]:
        wanted = [request for request in self._requests if is_wanted(request)]
        self._requests = [request for request in self._requests if not is_wanted(request)]
        return wanted


def drop_superseded(requests: Sequence[MaskRequest]) -> list[MaskRequest]:
    """Return the requests without those whose objects are all in one for a later image.

    A slow model would spend its time on masks that newer ones replace.

    Args:
        requests: in the order of arrival.

    """
    if any(request.removed for request in requests):
        return list(requests)
    objects = [{*request.indices} for request in requests]
    # The stamp 0 is that of the newest image.
    stamps = [request.stamp or float("inf") for request in requests]
    return [
        request
        for n, request in enumerate(requests)
        if not any(stamps[n] < stamps[m] and objects[n] <= objects[m] for m in range(len(requests)))
    ]


def decode_mask(message: Any, topic: str = "~/mask") -> Mask:  # noqa: ANN401
    """Return the object indices of a sensor_msgs/Image, uint8 [H, W].

    Args:
        message: an image with the encoding mono8 or mono16.
        topic: topic or service by which it came, for messages.

    Raises:
        MaskRequestError: the encoding is another one, size, step and data are inconsistent, an
            index is above 255, or the mask has no object.

    """
    dtype = _DTYPES.get(message.encoding)
    if dtype is None:
        raise MaskRequestError(
            "encoding",
            f"{topic} has the encoding {message.encoding!r}. Publish object indices as mono8 or "
            "mono16.",
        )
    try:
        indices = view_pixels(message, np.dtype(dtype))[..., 0]
    except InputError as error:
        raise MaskRequestError("malformed", f"{topic} cannot be decoded: {error}") from error
    return check_indices(indices, topic)


def check_indices(indices: NDArray[np.integer[Any]], topic: str) -> Mask:
    """Return object indices as uint8 [H, W].

    Args:
        indices: [H, W].
        topic: topic or service by which they came, for messages.

    Raises:
        MaskRequestError: an index is above 255, or none is above 0.

    """
    highest = int(indices.max(initial=0))
    if highest > _MAX_INDEX:
        raise MaskRequestError(
            "indices",
            f"{topic} has the index {highest}; the maximum is {_MAX_INDEX}. Renumber the objects.",
        )
    mask = indices.astype(np.uint8, copy=False)
    _check_mask(mask, (indices.shape[0], indices.shape[1]), "empty", topic)
    return mask


def check_request_size(mask: Mask, size: tuple[int, int], topic: str) -> None:
    """Check that a mask has the size of its image.

    Args:
        mask: uint8 [H, W], not empty.
        size: (height, width) of the image.
        topic: topic or service by which the mask came, for messages.

    Raises:
        MaskRequestError: the sizes differ.

    """
    _check_mask(mask, size, "size", topic)


def too_many_waiting_error() -> MaskRequestError:
    """Return the error for a request that newer ones displaced from the queue."""
    return MaskRequestError(
        "crowded",
        f"More than {_MAX_WAITING} masks wait for their images; the oldest is discarded. Request "
        "an object once, not with every image.",
    )


def stamp_ahead_error(seconds: float, topic: str) -> MaskRequestError:
    """Return the error for a request whose stamp no image is expected to have.

    Args:
        seconds: by which the stamp is ahead of the newest image.
        topic: topic or service by which the request came.

    """
    return MaskRequestError(
        "ahead",
        f"{topic} is {seconds:.1f} s ahead of the images, more than max_gap. Give it the stamp of "
        "its image, or the stamp 0 for the newest image.",
    )


def _check_mask(mask: Mask, size: tuple[int, int], reason: str, topic: str) -> None:
    try:
        check_mask(mask, size, topic)
    except InputError as error:
        raise MaskRequestError(reason, str(error)) from error
