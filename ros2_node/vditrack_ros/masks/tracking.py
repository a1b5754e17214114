"""Propagation of object masks through one camera's images."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from vditrack import Tracker
from vditrack.errors import LateMaskError
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds
from vditrack_ros.consumer import LOG_INTERVAL, RATE_SETTLING_TIME, CameraContext, CameraImage
from vditrack_ros.counters import ImageCounters, MaskCounters
from vditrack_ros.diagnostics import CameraState, Report, build_camera_report, summarize_masks
from vditrack_ros.masks.carrying import MaskCarrier
from vditrack_ros.masks.jobs import AheadImage, KnownMasks, MaskJob, QueuedImage
from vditrack_ros.masks.object_requests import (
    ObjectIndices,
    ObjectsRequest,
    check_objects,
    read_objects,
)
from vditrack_ros.masks.propagation import (
    DescribedImage,
    MaskWorkers,
    Outcome,
    Propagated,
    describe,
    propagate,
)
from vditrack_ros.masks.publication import MaskPublisher
from vditrack_ros.masks.requests import (
    MaskRequest,
    MaskRequestError,
    MaskRequestQueue,
    decode_mask,
    drop_superseded,
    stamp_ahead_error,
    too_many_waiting_error,
)
from vditrack_ros.overlay import OverlayPublisher
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.points.object_ids import PointObjectIds
from vditrack_ros.process import choose_label_thread_count
from vditrack_ros.services import Answer, Kind, RemoveRequest, create_request_service
from vditrack_ros.transport.topics import create_subscription


class MaskConsumer:
    """Propagates object masks to every image that the model has time for.

    The networks run in a thread of their own, and the propagation of labels in another. So one
    image is described while labels are propagated into the one before, and it waits for these at
    most. Meanwhile one image more waits, the newest; those before it are skipped. A request waits
    for the image with its stamp. If that image has passed, the request is applied to it all the
    same, and propagated to the newest image. If the request has no stamp, it is applied to the
    newest image.
    """

    def __init__(
        self,
        context: CameraContext,
        tracker: Tracker,
        workers: MaskWorkers,
        settings: Settings,
        overlay: OverlayPublisher,
        object_ids: PointObjectIds,
    ) -> None:
        """Create the topics for masks.

        Args:
            context: of the camera.
            tracker: shared by all cameras; its bundle propagates masks.
            workers: run the networks, propagate labels and carry masks, for all cameras.
            settings: the node's.
            overlay: drawn here, with the trails that it holds.
            object_ids: updated here from each mask.

        """
        self.counters, self.settings = ImageCounters(started=time.monotonic()), settings
        self._mask_counters, self._waiting = MaskCounters(), MaskRequestQueue()
        self._node, self._logger = context.node, context.logger
        self._tracker, self._workers = tracker, workers
        self._overlay, self._object_ids = overlay, object_ids
        self._rate_logged = False
        self._ahead: AheadImage | None = None
        self._job: MaskJob | None = None
        self._next: QueuedImage | None = None
        self._known: KnownMasks | None = None
        self._carrier = MaskCarrier(workers.flow, self._run_later, self._publish_carried)
        self._indices = ObjectIndices()
        self._publisher = MaskPublisher(context, overlay, object_ids, self.counters)
        self._reset_stream()
        # Reliable and deep, because a lost request is not repeated.
        request_qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._subscription = create_subscription(
            context.node, Image, f"{context.output_prefix}mask", self._on_mask, request_qos
        )
        self._service = create_request_service(
            context.node, context.output_prefix, "add_objects", read_objects, self._add_objects
        )

    @property
    def next_id(self) -> int:
        """0, because objects have no ids of points."""
        return 0

    def close(self) -> None:
        """Destroy all topics."""
        self._reset_stream()
        self._node.destroy_service(self._service)
        self._node.destroy_subscription(self._subscription)
        self._publisher.close()

    def process(self, image: CameraImage) -> None:
        """Describe an image, or queue it while another is described or waits for its labels."""
        queued = QueuedImage(image, self._overlay.trail, self._object_ids.latest_points)
        self._carrier.offer(self._stream, self._known, queued, self.settings.masks_rate)
        if self._ahead is None:
            self._start_next(queued)
            return
        # An image that a request waits for is not replaced by a newer one.
        skipped = self._next
        if self._next is None or not self._waiting.has(self._next.image.stamp):
            self._next = queued
        else:
            skipped = queued
        if skipped is not None:
            self._mask_counters.skipped_images += 1
            stamp = skipped.image.stamp / NANOSECONDS_PER_SECOND
            self._stream.keep(skipped.image.frame, stamp)

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

    def restart(self, *, after_pause: bool) -> None:
        """Discard all objects: their masks say nothing of images after a pause or a jump."""
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
        update = None if self._known is None else self._known.update
        summary = summarize_masks(update, self._mask_counters, len(self._waiting), now)
        return build_camera_report(self.counters, state, summary, self.settings, now)

    @property
    def _object_count(self) -> int:
        return 0 if self._known is None else len(self._known.update.indices)

    def _reset_stream(self) -> None:
        if self._ahead is not None:
            self._ahead.described.cancel()
        if self._job is not None:
            self._job.result.cancel()
        # What is in progress keeps the old stream; its result is ignored.
        self._ahead = self._job = self._next = self._known = None
        self._stream = self._tracker.mask_stream(choose_label_thread_count())
        self._carrier.reset()
        self._object_ids.clear_objects()
        self._publisher.reset()
        self._indices.clear()
        for request in self._waiting:
            self._indices.reserve(request.indices)
        self._hold_images()

    def _on_mask(self, message: Any) -> None:  # noqa: ANN401
        try:
            request = MaskRequest(to_nanoseconds(message.header.stamp), decode_mask(message))
            self._find_image_size(request.stamp, request.topic)
        except MaskRequestError as error:
            self._refuse(error)
            return
        self._accept(request)

    def _accept(self, request: MaskRequest) -> None:
        """Queue a request, and carry it out at once if the model is idle."""
        self._indices.reserve(request.indices)
        if self._waiting.add(request) is not None:
            self._refuse(too_many_waiting_error())
        self._hold_images()
        if self._ahead is None and self._job is None and self._known is not None:
            queued = self._known.queued
            requests = self._take_requests(queued.image, since=0)
            if requests:
                self._submit(queued, requests, None)

    def _add_objects(self, request: ObjectsRequest) -> Answer:
        """Answer a request of `~/add_objects`; it is carried out with the next image."""
        size = None
        try:
            self._check_stamp_ahead(request.stamp)
            size = self._find_image_size(request.stamp, "~/add_objects")
            checked = check_objects(request, size, self._indices)
        except MaskRequestError as error:
            checked = request.refuse(error)
        if checked.accepted is not None:
            self._accept(checked.accepted)
        for fault in checked.errors:
            self._refuse(fault)
        count = len(checked.ids) - checked.ids.count(0)
        message = f"{count} of {len(checked.ids)} objects are accepted"
        message += "." if size is not None or not count else " and wait for their image."
        return Answer(not checked.errors, message, checked.ids, checked.reasons)

    def remove(self, request: RemoveRequest) -> Answer | None:
        """Forget an object, with the next image."""
        if request.kind is not Kind.OBJECT:
            return None
        if request.id not in self._indices:
            return Answer(False, f"There is no object with the index {request.id}.")
        self._accept(MaskRequest(0, removed=request.id))
        self._indices.release(request.id)
        return Answer(True, f"Object {request.id} is removed.")

    @property
    def _known_images(self) -> list[CameraImage]:
        """The images that have their masks, are worked on, or are next."""
        job = None if self._job is None else self._job.queued
        ahead = None if self._ahead is None else self._ahead.queued
        newest = None if self._known is None else self._known.queued
        known = (newest, job, ahead, self._next)
        return [queued.image for queued in known if queued is not None]

    def _check_stamp_ahead(self, stamp: int) -> None:
        """Raise MaskRequestError if a stamp in nanoseconds is too far ahead of the images."""
        newest = max((image.stamp for image in self._known_images), default=stamp)
        ahead = (stamp - newest) / NANOSECONDS_PER_SECOND
        if ahead > self.settings.max_gap:
            raise stamp_ahead_error(ahead, "~/add_objects")

    def _find_image_size(self, stamp: int, topic: str) -> tuple[int, int] | None:
        """Return (height, width) of the image with a stamp in nanoseconds; None if it is to come.

        Raises:
            MaskRequestError: the image is no longer kept, or never came.

        """
        known = self._known_images
        if not known:
            return None
        newest = max(known, key=lambda image: image.stamp)
        found = next((image for image in known if image.stamp == (stamp or newest.stamp)), None)
        if found is not None:
            return found.frame.shape[:2]
        if stamp > newest.stamp:
            return None
        try:
            return self._stream.frame_size(stamp / NANOSECONDS_PER_SECOND)
        except LateMaskError as error:
            raise MaskRequestError("late", f"{topic} is refused: {error}") from error

    def _hold_images(self) -> None:
        """Keep the images of all requests that wait or are in work, however long that takes."""
        requests = [*self._waiting, *([] if self._job is None else self._job.requests)]
        stamps = (request.stamp / NANOSECONDS_PER_SECOND for request in requests if request.stamp)
        self._stream.hold(stamps)

    def _start_next(self, queued: QueuedImage) -> None:
        """Describe the next image, and refuse requests too far ahead of it."""
        image = queued.image
        limit = image.stamp + round(self.settings.max_gap * NANOSECONDS_PER_SECOND)
        for request in self._waiting.take_after(limit):
            ahead = (request.stamp - image.stamp) / NANOSECONDS_PER_SECOND
            self._refuse(stamp_ahead_error(ahead, request.topic))
        described = self._workers.networks.submit(describe, self._stream, image.frame, image.stamp)
        self._ahead = AheadImage(queued, described)
        described.add_done_callback(lambda _: self._run_later(self._advance))

    def _advance(self) -> None:
        """Propagate labels into the described image if those before are done; start the next."""
        ahead = self._ahead
        if ahead is None or self._job is not None or not ahead.described.done():
            return
        self._ahead = None
        requests = self._take_requests(ahead.queued.image, since=0)
        self._submit(ahead.queued, requests, ahead.described)
        waiting, self._next = self._next, None
        if waiting is not None:
            self._start_next(waiting)

    def _take_requests(self, image: CameraImage, *, since: int) -> list[MaskRequest]:
        """Take the requests with stamps from `since` to the image's own."""
        requests = self._waiting.take_between(since, image.stamp)
        latest = drop_superseded(requests)
        self._mask_counters.superseded += len(requests) - len(latest)
        return latest

    def _submit(
        self,
        queued: QueuedImage,
        requests: list[MaskRequest],
        described: Future[DescribedImage] | None,
    ) -> None:
        image = queued.image
        result = self._workers.labels.submit(
            propagate, self._stream, described, image.frame, image.stamp, requests
        )
        job = self._job = MaskJob(queued, requests, result)
        self._hold_images()
        result.add_done_callback(lambda _: self._run_later(partial(self._finish, job)))

    def _finish(self, job: MaskJob) -> None:
        """Publish the result of a job, and propagate labels into the next image."""
        if job is not self._job:
            return
        self._job = None
        self._hold_images()
        try:
            result = job.result.result()
            self._known = KnownMasks(job.queued, result.update)
            self._count_requests(job.queued.image.stamp, result.outcomes)
            image = job.queued.image
            # Requests that came meanwhile: all of them go to this image if no other follows,
            # otherwise only those with its stamp.
            requests = self._take_requests(image, since=0 if self._ahead is None else image.stamp)
            if requests:
                self._submit(job.queued, requests, None)
                return
            # Labels of the next image are propagated while this one is published.
            self._advance()
            self._publish(job.queued, result)
        except Exception as error:
            self.handle_failure(error)

    def _publish_carried(self, queued: QueuedImage, carried: Future[Propagated]) -> None:
        try:
            self._publish(queued, carried.result())
        except Exception as error:
            self.handle_failure(error)
            return
        self._mask_counters.carried_images += 1

    def _publish(self, queued: QueuedImage, result: Propagated) -> None:
        self._publisher.publish(queued, result.update, self.settings, result.seconds)

    def _run_later(self, work: Callable[[], None]) -> None:
        """Run a function in the thread of the node."""
        self._node.executor.create_task(work)

    def _count_requests(self, newest: int, outcomes: list[Outcome]) -> None:
        """Count and log what became of requests.

        Args:
            newest: stamp of the newest image, in nanoseconds.
            outcomes: of the requests that were carried out with it.

        """
        for outcome in outcomes:
            if outcome.error is not None:
                self._refuse(outcome.error)
                continue
            self._mask_counters.accepted += not outcome.request.removed
            self._logger.info(outcome.describe(newest))

    def _refuse(self, error: MaskRequestError) -> None:
        self._mask_counters.count_refusal(time.monotonic(), error.reason, str(error))
        self._logger.warning(str(error))

    def _log_rate(self, now: float) -> None:
        counters = self.counters
        too_early = counters.window_length(now) < RATE_SETTLING_TIME
        if self._rate_logged or too_early or self._known is None:
            return
        self._rate_logged = True
        rate, rate_in = counters.output_rate(now), counters.input_rate(now)
        others = "; the others are skipped" if rate < 0.95 * rate_in else ""
        self._logger.info(
            f"Masks are propagated to {rate:.1f} of {rate_in:.1f} images per second{others}."
        )
