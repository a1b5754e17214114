"""Masks of objects in one camera's images."""

import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from vditrack import Tracker
from vditrack.streams.mask_stream import MaskStream, MaskUpdate
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.consumer import AGAIN, SETTLED, Shot, Site
from vditrack_ros.counters import Counts, MaskCounts, Timing
from vditrack_ros.diagnostics import Report, State, camera_report, objects_followed
from vditrack_ros.masks.requests import (
    Mark,
    MarkError,
    WaitingMarks,
    ahead_error,
    crowded_error,
    read_mask,
)
from vditrack_ros.messages import masks_image
from vditrack_ros.overlay import Overlay, Trail
from vditrack_ros.parameters import Settings
from vditrack_ros.points.object_ids import PointObjects
from vditrack_ros.stamps import SECOND, nanoseconds


@dataclass(frozen=True)
class _Seen:
    """An image, and where points were when it came."""

    shot: Shot
    trail: Trail
    """For the overlay."""
    points: LiveUpdate | None
    """All of them, where they are followed too."""


@dataclass(frozen=True)
class _Job:
    """An image that the model is at work on."""

    seen: _Seen
    marks: list[Mark]
    """Those that are marked on it."""
    done: Future[tuple[MaskUpdate, float]]
    """Where the objects are, and the seconds that it took."""


class ObjectMasks:
    """Objects, once they were marked, in every image that the model has time for.

    The model works in a thread of its own, on one image at a time. Meanwhile only the newest image
    waits: those before it are passed over. A mask waits for the image of its stamp; where that has
    passed, or there is no stamp, objects are marked on the newest image.
    """

    def __init__(
        self,
        site: Site,
        tracker: Tracker,
        worker: Executor,
        settings: Settings,
        overlay: Overlay,
        points: PointObjects,
    ) -> None:
        """Offer a camera's masks.

        Args:
            site: where the camera is.
            tracker: shared by all cameras; its bundle propagates masks.
            worker: runs its model for masks, in one thread for all cameras.
            settings: the node's.
            overlay: drawn here, with the points that were noted on it.
            points: are told here which object they are on.

        """
        self.counts, self.settings = Counts(since=time.monotonic()), settings
        self._mask_counts, self._waiting = MaskCounts(), WaitingMarks()
        self._node, self._logger = site.node, site.logger
        self._tracker, self._worker = tracker, worker
        self._overlay, self._points = overlay, points
        self._rate_told = False
        self._job: _Job | None = None
        self._next: _Seen | None = None
        self._newest: _Seen | None = None
        self._update: MaskUpdate | None = None
        self._forget_images()
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = site.node.create_publisher(Image, f"{site.own}masks", newest)
        # No mask may be lost.
        asking = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._subscription = site.node.create_subscription(
            Image, f"{site.own}mask", self._on_mask, asking
        )

    def close(self) -> None:
        """Free all topics."""
        self._forget_images()
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

    def take(self, shot: Shot) -> None:
        """Have the model work on an image, or let the image wait."""
        seen = _Seen(shot, self._overlay.trail, self._points.newest)
        if self._job is None:
            self._describe(seen)
            return
        if self._next is not None:
            self._mask_counts.passed_over += 1
        # The image that a mask was made for is worth more than a newer one.
        if self._next is None or not self._waiting.has(self._next.shot.stamp):
            self._next = seen

    def fail(self, error: Exception) -> None:
        """Tell that objects could not be carried into an image, and start over."""
        self.counts.drop(time.monotonic(), "failed")
        self.counts.last_error = f"{type(error).__name__}: {error}"
        self._logger.error(
            f"Masks failed and start over: {self.counts.last_error}", throttle_duration_sec=AGAIN
        )
        self.start_over()

    def start_over(self) -> None:
        """Forget all objects; masks that wait for their images go on waiting."""
        if self._count:
            self._logger.warning(f"{self._count} objects are forgotten. Mark them again.")
        self._forget_images()

    def forget(self) -> str:
        """Forget all objects, and masks that wait; tell how many objects."""
        told = f"{self._count} objects"
        self._waiting.clear()
        self.start_over()
        return told

    def report(self, state: State, now: float) -> Report:
        """Tell how well the camera is kept up with, and of the objects."""
        self._tell_rate(now)
        followed = objects_followed(
            self._update, self._mask_counts, len(self._waiting), self._marked_images, now
        )
        return camera_report(self.counts, state, followed, self.settings, now)

    @property
    def _count(self) -> int:
        return 0 if self._update is None else len(self._update.indices)

    def _forget_images(self) -> None:
        if self._job is not None:
            self._job.done.cancel()
        # What the model still works on belongs to the past, and so does the stream it is in.
        self._job, self._stream = None, self._tracker.mask_stream()
        self._next = self._newest = self._update = None
        self._points.forget_objects()
        self._published_stamp = self._marked_stamp = self._marked_images = 0

    def _on_mask(self, message: Any) -> None:  # noqa: ANN401
        try:
            mark = Mark(nanoseconds(message.header.stamp), read_mask(message))
        except MarkError as error:
            self._refuse(error)
            return
        if self._waiting.add(mark) is not None:
            self._refuse(crowded_error())
        if self._job is None and self._newest is not None:
            marks = self._marks_of(self._newest.shot, since=0)
            if marks:
                self._begin(self._newest, marks)

    def _describe(self, seen: _Seen) -> None:
        """Have the model work on the next image."""
        limit = seen.shot.stamp + round(self.settings.max_gap * SECOND)
        for mark in self._waiting.take_after(limit):
            self._refuse(ahead_error((mark.stamp - seen.shot.stamp) / SECOND))
        self._begin(seen, self._marks_of(seen.shot, since=0))

    def _marks_of(self, shot: Shot, *, since: int) -> list[Mark]:
        """Take masks of a stamp from ``since`` up to the image's own; those of its size."""
        fitting = []
        for mark in self._waiting.take(since, shot.stamp):
            try:
                mark.check_size(shot.frame.shape[:2])
            except MarkError as error:
                self._refuse(error)
            else:
                fitting.append(mark)
        return fitting

    def _begin(self, seen: _Seen, marks: list[Mark]) -> None:
        masks = [mark.mask for mark in marks]
        done = self._worker.submit(_carried, self._stream, seen.shot, masks)
        job = self._job = _Job(seen, marks, done)
        executor = self._node.executor
        done.add_done_callback(lambda _: executor.create_task(self._finish, job))

    def _finish(self, job: _Job) -> None:
        """Hand out what the model has made of an image, and go on to the next."""
        if job is not self._job:
            return
        self._job = None
        try:
            self._update, seconds = job.done.result()
            self._newest = job.seen
            self._note_marks(job)
            shot = job.seen.shot
            # Masks that came meanwhile; the next image takes those that are not of this one.
            marks = self._marks_of(shot, since=0 if self._next is None else shot.stamp)
            if marks:
                self._begin(job.seen, marks)
                return
            self._publish(job.seen, self._update, seconds)
        except Exception as error:
            self.fail(error)
        following, self._next = self._next, None
        if following is not None:
            self._describe(following)

    def _publish(self, seen: _Seen, update: MaskUpdate, seconds: float) -> None:
        shot, began = seen.shot, time.perf_counter()
        if seen.points is not None:
            self._points.learn(seen.points, update.mask)
        if self._publisher.get_subscription_count() > 0:
            self._publisher.publish(masks_image(shot.header, update.mask))
        self._overlay.publish(shot, seen.trail, self.settings, update.mask)
        # Marked later, an image is published again, and says nothing of latency.
        if shot.stamp != self._published_stamp:
            published = time.perf_counter() - began
            timing = Timing(shot.latency(), shot.decoding, seconds, published)
            self.counts.tracked(time.monotonic(), timing)
            self._published_stamp = shot.stamp

    def _note_marks(self, job: _Job) -> None:
        stamp = job.seen.shot.stamp
        if job.marks and stamp != self._marked_stamp:
            self._marked_stamp = stamp
            self._marked_images += 1
        for mark in job.marks:
            self._mask_counts.marked += 1
            indices = ", ".join(str(index) for index in np.unique(mark.mask) if index)
            late = (stamp - mark.stamp) / SECOND if mark.stamp else 0.0
            told = f", on an image {late:.3g} s later than the mask's" if late else ""
            self._logger.info(f"Marked objects {indices}{told}.")

    def _refuse(self, error: MarkError) -> None:
        self._mask_counts.refuse(time.monotonic(), error.reason, str(error))
        self._logger.warning(str(error))

    def _tell_rate(self, now: float) -> None:
        counts = self.counts
        if self._rate_told or counts.span(now) < SETTLED or self._update is None:
            return
        self._rate_told = True
        rate, rate_in = len(counts.recent(now)) / counts.span(now), counts.rate_in(now)
        between = "; those between are passed over" if rate < 0.95 * rate_in else ""
        self._logger.info(
            f"There are masks of {rate:.1f} of {rate_in:.1f} images a second{between}."
        )


def _carried(
    stream: MaskStream, shot: Shot, masks: list[NDArray[np.uint8]]
) -> tuple[MaskUpdate, float]:
    """Objects in an image, with those that are marked on it, and the seconds that it took.

    An image that was the last one before is not described again.
    """
    began = time.perf_counter()
    stamp = shot.stamp / SECOND
    update = stream.push(shot.frame, stamp)
    if masks:
        for mask in masks:
            stream.add_masks(mask)
        update = stream.push(shot.frame, stamp)
    return update, time.perf_counter() - began
