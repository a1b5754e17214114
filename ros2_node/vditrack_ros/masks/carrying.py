"""Masks of images that the model does not describe, carried there by optical flow. Needs no ROS."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future

from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack.streams.mask_stream import MaskStream
from vditrack_ros.masks.jobs import KnownMasks, QueuedImage
from vditrack_ros.masks.propagation import Propagated

_EARLY_SHARE = 4
"""Part of the period by which an image may be early, since no camera is exactly regular: the
fourth part."""


class MaskCarrier:
    """Carries the newest masks of a camera into newer images, at a rate, in a thread."""

    def __init__(
        self,
        worker: Executor,
        run_later: Callable[[Callable[[], None]], object],
        publish: Callable[[QueuedImage, Future[Propagated]], None],
    ) -> None:
        """Start without images.

        Args:
            worker: computes the flow, in one thread for all cameras.
            run_later: runs a function in the thread of the node.
            publish: takes an image and its masks, in the thread of the node.

        """
        self._worker, self._run_later, self._publish = worker, run_later, publish
        self._due = 0
        self._carried: Future[Propagated] | None = None

    def reset(self) -> None:
        """Forget the image in work."""
        if self._carried is not None:
            self._carried.cancel()
        self._carried, self._due = None, 0

    def offer(
        self, stream: MaskStream, known: KnownMasks | None, queued: QueuedImage, rate: float
    ) -> None:
        """Carry masks into an image, if one is due and the thread is idle.

        Args:
            stream: of the camera.
            known: the newest masks; None before the first.
            queued: an image after theirs.
            rate: images per second that get masks; 0 for none.

        """
        if known is None or rate <= 0:
            return
        stamp, period = queued.image.stamp, round(NANOSECONDS_PER_SECOND / rate)
        if self._carried is not None or stamp < self._due - period // _EARLY_SHARE:
            return
        # What a pause left out is not made up for.
        self._due = (self._due if stamp - self._due < period else stamp) + period
        carried = self._carried = self._worker.submit(_carry, stream, known, queued)

        def finish() -> None:
            if carried is self._carried:
                self._carried = None
                self._publish(queued, carried)

        carried.add_done_callback(lambda _: self._run_later(finish))


def _carry(stream: MaskStream, known: KnownMasks, queued: QueuedImage) -> Propagated:
    """Return the newest masks in a later image."""
    start, (before, after) = time.perf_counter(), (known.queued.image, queued.image)
    seconds = after.stamp / NANOSECONDS_PER_SECOND
    update = stream.carry(known.update, before.frame, after.frame, seconds)
    return Propagated(update, time.perf_counter() - start, [])
