"""Propagation of object masks through one camera's images."""

import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from vditrack import Tracker
from vditrack.arrays import Mask
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds
from vditrack.streams.mask_stream import MaskStream, MaskUpdate
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.consumer import LOG_INTERVAL, RATE_SETTLING_TIME, CameraContext, CameraImage
from vditrack_ros.counters import ImageCounters, MaskCounters, Timing
from vditrack_ros.diagnostics import CameraState, Report, build_camera_report, summarize_masks
from vditrack_ros.masks.requests import (
    MaskRequest,
    MaskRequestError,
    MaskRequestQueue,
    decode_mask,
    stamp_ahead_error,
    too_many_waiting_error,
)
from vditrack_ros.messages import build_mask_image
from vditrack_ros.overlay import OverlayPublisher, Trail
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.points.object_ids import PointObjectIds
from vditrack_ros.transport.topics import create_publisher, create_subscription


@dataclass(frozen=True)
class _QueuedImage:
    """An image, with the points at the time when it arrived."""

    image: CameraImage
    trail: Trail
    """Trails of the points, for the overlay."""
    points: LiveUpdate | None
    """The points in this image; None in the mode masks."""


@dataclass(frozen=True)
class _Job:
    """An image that the model works on."""

    queued: _QueuedImage
    requests: list[MaskRequest]
    """The requests that are applied to the image."""
    result: Future[tuple[MaskUpdate, float]]
    """The masks, and the seconds that the model took."""


class MaskConsumer:
    """Propagates object masks to every image that the model has time for.

    The model runs in its own thread, on one image at a time. Meanwhile one image waits, the newest;
    those before it are skipped. A mask request waits for the image with its stamp. If that image
    has passed, or the request has no stamp, it is applied to the newest image.
    """

    def __init__(
        self,
        context: CameraContext,
        tracker: Tracker,
        worker: Executor,
        settings: Settings,
        overlay: OverlayPublisher,
        object_ids: PointObjectIds,
    ) -> None:
        """Create the topics for masks.

        Args:
            context: of the camera.
            tracker: shared by all cameras; its bundle propagates masks.
            worker: runs the model for masks, in one thread for all cameras.
            settings: the node's.
            overlay: drawn here, with the trails that it holds.
            object_ids: updated here from each mask.

        """
        self.counters, self.settings = ImageCounters(started=time.monotonic()), settings
        self._mask_counters, self._waiting = MaskCounters(), MaskRequestQueue()
        self._node, self._logger = context.node, context.logger
        self._tracker, self._worker = tracker, worker
        self._overlay, self._object_ids = overlay, object_ids
        self._rate_logged = False
        self._job: _Job | None = None
        self._next: _QueuedImage | None = None
        self._newest: _QueuedImage | None = None
        self._update: MaskUpdate | None = None
        self._reset_stream()
        output_qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = create_publisher(
            context.node, Image, f"{context.output_prefix}masks", output_qos
        )
        # Reliable and deep, because a lost request is not repeated.
        request_qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._subscription = create_subscription(
            context.node, Image, f"{context.output_prefix}mask", self._on_mask, request_qos
        )

    def close(self) -> None:
        """Destroy all topics."""
        self._reset_stream()
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)

    def process(self, image: CameraImage) -> None:
        """Start the model on an image, or queue the image while the model is busy."""
        queued = _QueuedImage(image, self._overlay.trail, self._object_ids.latest_points)
        if self._job is None:
            self._start_next(queued)
            return
        if self._next is not None:
            self._mask_counters.skipped_images += 1
        # An image that a request waits for is not replaced by a newer one.
        if self._next is None or not self._waiting.has(self._next.image.stamp):
            self._next = queued

    def handle_failure(self, error: Exception) -> None:
        """Log and count a failure of the model, and reset."""
        self.counters.count_failure(time.monotonic(), error)
        self._logger.error(
            f"Mask propagation failed and is reset: {self.counters.last_error}",
            throttle_duration_sec=LOG_INTERVAL,
        )
        self.reset()

    def reset(self) -> None:
        """Discard all objects; requests that wait for their image remain."""
        if self._object_count:
            self._logger.warning(
                f"{self._object_count} objects are discarded. Publish their masks again."
            )
        self._reset_stream()

    def restart(self) -> None:
        """Discard all objects: their masks say nothing of images after a jump of the clock."""
        self.reset()

    def reset_on_request(self) -> str:
        """Discard all objects and waiting requests; return how many objects there were."""
        discarded = f"{self._object_count} objects"
        self._waiting.clear()
        self.reset()
        return discarded

    def report(self, state: CameraState, now: float) -> Report:
        """Return the diagnostics of the masks.

        Args:
            state: of the camera.
            now: monotonic time in seconds.

        """
        self._log_rate(now)
        summary = summarize_masks(
            self._update, self._mask_counters, len(self._waiting), self._key_images, now
        )
        return build_camera_report(self.counters, state, summary, self.settings, now)

    @property
    def _object_count(self) -> int:
        return 0 if self._update is None else len(self._update.indices)

    def _reset_stream(self) -> None:
        if self._job is not None:
            self._job.result.cancel()
        # A job in progress keeps the old stream; its result is ignored.
        self._job, self._stream = None, self._tracker.mask_stream()
        self._next = self._newest = self._update = None
        self._object_ids.clear_objects()
        self._published_stamp = self._key_stamp = self._key_images = 0

    def _on_mask(self, message: Any) -> None:  # noqa: ANN401
        try:
            request = MaskRequest(to_nanoseconds(message.header.stamp), decode_mask(message))
        except MaskRequestError as error:
            self._refuse(error)
            return
        if self._waiting.add(request) is not None:
            self._refuse(too_many_waiting_error())
        if self._job is None and self._newest is not None:
            requests = self._take_requests(self._newest.image, since=0)
            if requests:
                self._submit(self._newest, requests)

    def _start_next(self, queued: _QueuedImage) -> None:
        """Start the model on the next image, and refuse requests too far ahead of it."""
        stamp = queued.image.stamp
        limit = stamp + round(self.settings.max_gap * NANOSECONDS_PER_SECOND)
        for request in self._waiting.take_after(limit):
            self._refuse(stamp_ahead_error((request.stamp - stamp) / NANOSECONDS_PER_SECOND))
        self._submit(queued, self._take_requests(queued.image, since=0))

    def _take_requests(self, image: CameraImage, *, since: int) -> list[MaskRequest]:
        """Take the requests with stamps from `since` to the image's own that have its size."""
        valid = []
        for request in self._waiting.take_between(since, image.stamp):
            try:
                request.check_size(image.frame.shape[:2])
            except MaskRequestError as error:
                self._refuse(error)
            else:
                valid.append(request)
        return valid

    def _submit(self, queued: _QueuedImage, requests: list[MaskRequest]) -> None:
        masks = [request.mask for request in requests]
        result = self._worker.submit(_propagate, self._stream, queued.image, masks)
        job = self._job = _Job(queued, requests, result)
        executor = self._node.executor
        result.add_done_callback(lambda _: executor.create_task(self._finish, job))

    def _finish(self, job: _Job) -> None:
        """Publish the result of a job, and start the model on the next image."""
        if job is not self._job:
            return
        self._job = None
        try:
            self._update, seconds = job.result.result()
            self._newest = job.queued
            self._count_requests(job)
            image = job.queued.image
            # Requests that came meanwhile: all of them go to this image if no other waits,
            # otherwise only those with its stamp.
            requests = self._take_requests(image, since=0 if self._next is None else image.stamp)
            if requests:
                self._submit(job.queued, requests)
                return
            self._publish(job.queued, self._update, seconds)
        except Exception as error:
            self.handle_failure(error)
        waiting, self._next = self._next, None
        if waiting is not None:
            self._start_next(waiting)

    def _publish(self, queued: _QueuedImage, update: MaskUpdate, seconds: float) -> None:
        image, start = queued.image, time.perf_counter()
        if queued.points is not None:
            self._object_ids.update_from_mask(queued.points, update.mask)
        if self._publisher.get_subscription_count() > 0:
            self._publisher.publish(build_mask_image(image.header, update.mask))
        self._overlay.publish(image, queued.trail, self.settings, update.mask)
        # An image is published again after a late request; its latency is counted once.
        if image.stamp != self._published_stamp:
            published = time.perf_counter() - start
            timing = Timing(image.latency(), image.decode_seconds, seconds, published)
            self.counters.count_result(time.monotonic(), timing)
            self._published_stamp = image.stamp

    def _count_requests(self, job: _Job) -> None:
        """Count and log the requests that a job has applied."""
        stamp = job.queued.image.stamp
        if job.requests and stamp != self._key_stamp:
            self._key_stamp = stamp
            self._key_images += 1
        for request in job.requests:
            self._mask_counters.accepted += 1
            indices = ", ".join(str(index) for index in np.unique(request.mask) if index)
            delay = (stamp - request.stamp) / NANOSECONDS_PER_SECOND if request.stamp else 0.0
            late = f", on an image {delay:.3g} s later than the mask's" if delay else ""
            self._logger.info(f"Tracking objects {indices}{late}.")

    def _refuse(self, error: MaskRequestError) -> None:
        self._mask_counters.count_refusal(time.monotonic(), error.reason, str(error))
        self._logger.warning(str(error))

    def _log_rate(self, now: float) -> None:
        counters = self.counters
        too_early = counters.window_length(now) < RATE_SETTLING_TIME
        if self._rate_logged or too_early or self._update is None:
            return
        self._rate_logged = True
        rate, rate_in = counters.output_rate(now), counters.input_rate(now)
        others = "; the others are skipped" if rate < 0.95 * rate_in else ""
        self._logger.info(
            f"Masks are propagated to {rate:.1f} of {rate_in:.1f} images per second{others}."
        )


def _propagate(
    stream: MaskStream, image: CameraImage, masks: list[Mask]
) -> tuple[MaskUpdate, float]:
    """Propagate masks to an image and add the masks of new objects; also return the seconds.

    The stream encodes an image once: a second push of the same stamp reuses its features.
    """
    start = time.perf_counter()
    stamp = image.stamp / NANOSECONDS_PER_SECOND
    update = stream.push(image.frame, stamp)
    if masks:
        for mask in masks:
            stream.add_masks(mask)
        update = stream.push(image.frame, stamp)
    return update, time.perf_counter() - start
