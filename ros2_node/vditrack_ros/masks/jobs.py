"""Images on their way to their masks."""

from concurrent.futures import Future
from dataclasses import dataclass

from vditrack.streams.mask_stream import MaskUpdate
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.consumer import CameraImage
from vditrack_ros.masks.propagation import DescribedImage, Propagated
from vditrack_ros.masks.requests import MaskRequest
from vditrack_ros.overlay import Trail


@dataclass(frozen=True)
class QueuedImage:
    """An image, with the points at the time when it arrived."""

    image: CameraImage
    trail: Trail
    """Trails of the points, for the overlay."""
    points: LiveUpdate | None
    """The points in this image; None in the mode masks."""


@dataclass(frozen=True)
class KnownMasks:
    """The newest masks that the model gave."""

    queued: QueuedImage
    """Their image."""
    update: MaskUpdate


@dataclass(frozen=True)
class AheadImage:
    """An image that is being described, or waits for the labels of the image before it."""

    queued: QueuedImage
    described: Future[DescribedImage]


@dataclass(frozen=True)
class MaskJob:
    """An image into which labels are propagated."""

    queued: QueuedImage
    requests: list[MaskRequest]
    """Requests that are carried out with it."""
    result: Future[Propagated]
    """The masks, and the outcomes of the requests."""
