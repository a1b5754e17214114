"""What the model's thread does for masks: one image, and the requests for it. Needs no ROS."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Frame
from vditrack.errors import InputError, LateMaskError
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack.streams.mask_stream import MaskStream, MaskUpdate
from vditrack_ros.masks.requests import MaskRequest, MaskRequestError


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    request: MaskRequest
    placed: int = 0
    """Stamp in nanoseconds of the image on which it was placed; 0 if it was refused."""
    error: MaskRequestError | None = None
    """Why it was refused; None if it was not."""

    def describe(self, newest: int) -> str:
        """Return what was done, for the log.

        Args:
            newest: stamp of the newest image, in nanoseconds.

        """
        if self.request.removed:
            return f"Object {self.request.removed} is removed."
        indices = ", ".join(map(str, self.request.indices))
        delay = (newest - self.placed) / NANOSECONDS_PER_SECOND
        # Stamps in seconds since 1970 are exact to less than a microsecond.
        is_newest = delay < 1e-6
        image = "the newest image" if is_newest else f"an image {delay:.3g} s before the newest"
        return f"Tracking the objects with the indices {indices}, from {image}."


@dataclass(frozen=True)
class Propagated:
    """The masks of an image."""

    update: MaskUpdate
    seconds: float
    """Seconds that the model took."""
    outcomes: list[Outcome]
    """Outcomes of the requests."""


def propagate(
    stream: MaskStream, frame: Frame, stamp: int, requests: Sequence[MaskRequest]
) -> Propagated:
    """Propagate masks to an image, and carry out requests for it and for earlier images.

    The stream encodes an image once: a second push of the same stamp reuses its features.

    Args:
        stream: of the camera.
        frame: the image, uint8 [H, W, 3] RGB.
        stamp: of the image, in nanoseconds.
        requests: with stamps up to that of the image.

    """
    start = time.perf_counter()
    seconds = stamp / NANOSECONDS_PER_SECOND
    update = stream.push(frame, seconds)
    outcomes = [_apply(stream, request, stamp) for request in requests]
    if outcomes:
        update = stream.push(frame, seconds)
    return Propagated(update, time.perf_counter() - start, outcomes)


def _apply(stream: MaskStream, request: MaskRequest, newest: int) -> Outcome:
    """Carry out a request.

    Args:
        stream: of the camera.
        request: with a stamp up to that of the newest image.
        newest: stamp of the newest image, in nanoseconds.

    """
    if request.removed:
        # An object whose own request was refused is not there.
        with suppress(InputError):
            stream.remove(request.removed)
        return Outcome(request, newest)
    try:
        stamp = (request.stamp or newest) / NANOSECONDS_PER_SECOND
        mask = request.mask
        if request.boxes:
            corners = [box.corners for box in request.boxes]
            found = stream.segment_boxes(corners, [box.index for box in request.boxes], stamp)
            mask = found if mask is None else np.where(mask > 0, mask, found)
        assert mask is not None
        placed = stream.add_masks(mask, stamp)
        return Outcome(request, round(placed * NANOSECONDS_PER_SECOND))
    except LateMaskError as error:
        return Outcome(
            request, error=MaskRequestError("late", f"{request.topic} is refused: {error}")
        )
    except InputError as error:
        return Outcome(
            request, error=MaskRequestError("size", f"{request.topic} is refused: {error}")
        )
