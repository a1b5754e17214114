"""What the threads for masks do: one image, and the requests for it. Needs no ROS."""

import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Frame
from vditrack.errors import InputError, LateMaskError
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack.streams.mask_stream import DescribedFrame, MaskStream, MaskUpdate
from vditrack_ros.masks.requests import MaskRequest, MaskRequestError


@dataclass(frozen=True)
class MaskWorkers:
    """The threads that propagate masks."""

    networks: Executor
    """Describes images, in one thread for all cameras."""
    labels: Executor
    """Propagates labels, in one thread for all cameras."""
    flow: Executor
    """Carries masks by optical flow, in one thread for all cameras."""


@dataclass(frozen=True)
class DescribedImage:
    """The features of an image."""

    frame: DescribedFrame
    seconds: float
    """Seconds that the networks took."""


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
    """Seconds that the networks and the propagation of labels took."""
    outcomes: list[Outcome]
    """Outcomes of the requests."""


def describe(stream: MaskStream, frame: Frame, stamp: int) -> DescribedImage:
    """Return the features of the next image.

    Args:
        stream: of the camera.
        frame: the image, uint8 [H, W, 3] RGB.
        stamp: of the image, in nanoseconds.

    """
    start = time.perf_counter()
    described = stream.describe(frame, stamp / NANOSECONDS_PER_SECOND)
    return DescribedImage(described, time.perf_counter() - start)


def propagate(
    stream: MaskStream,
    described: Future[DescribedImage] | None,
    frame: Frame,
    stamp: int,
    requests: Sequence[MaskRequest],
) -> Propagated:
    """Propagate masks to an image, and carry out requests for it and for earlier images.

    Args:
        stream: of the camera.
        described: features of the image; None if it was pushed before.
        frame: the image, uint8 [H, W, 3] RGB.
        stamp: of the image, in nanoseconds.
        requests: with stamps up to that of the image.

    """
    start = time.perf_counter()
    seconds, update, networks = stamp / NANOSECONDS_PER_SECOND, None, 0.0
    if described is not None:
        image = described.result()
        update, networks = stream.push_described(image.frame), image.seconds
    outcomes = [_apply(stream, request, stamp) for request in requests]
    if outcomes or update is None:
        update = stream.push(frame, seconds)
    return Propagated(update, networks + time.perf_counter() - start, outcomes)


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
