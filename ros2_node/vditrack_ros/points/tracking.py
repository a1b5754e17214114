"""Tracking of points through one camera's images."""

import math
import time
from concurrent.futures import Executor
from dataclasses import replace

from geometry_msgs.msg import PointStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vditrack import Tracker
from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.calibration.geometry import CameraGeometry
from vditrack_ros.consumer import LOG_INTERVAL, RATE_SETTLING_TIME, CameraContext, CameraImage
from vditrack_ros.counters import ImageCounters, Timing
from vditrack_ros.diagnostics import (
    CameraState,
    ConsumerSummary,
    Report,
    build_camera_report,
    summarize_points,
)
from vditrack_ros.overlay import OverlayPublisher
from vditrack_ros.parameters.settings import Region, Settings
from vditrack_ros.points.intake import RequestIntake
from vditrack_ros.points.object_ids import PointObjectIds
from vditrack_ros.points.placement import NotReadyError
from vditrack_ros.points.population import Population
from vditrack_ros.points.population_area import Size, describe_excess, read_population_mask
from vditrack_ros.points.publishers import PointPublishers
from vditrack_ros.points.requests import read_clicked_pixel
from vditrack_ros.points.results import PointResult, ResultQueue
from vditrack_ros.services import Answer, Kind, RemoveRequest
from vditrack_ros.transforms import MissingTransformError
from vditrack_ros.transport.sensor_subscription import SensorSubscription
from vditrack_ros.transport.topics import create_subscription

_TRANSFORM_PATIENCE = 2.0
"""Seconds for which a clicked point in another frame waits for its transform."""


class PointConsumer:
    """Tracks requested points and the population into every image, and publishes them."""

    def __init__(
        self,
        context: CameraContext,
        tracker: Tracker,
        worker: Executor,
        settings: Settings,
        overlay: OverlayPublisher,
        object_ids: PointObjectIds,
        *,
        draws_overlay: bool,
    ) -> None:
        """Create the topics for points.

        Args:
            context: of the camera.
            tracker: shared by all cameras.
            worker: runs the model for points, in one thread for all cameras.
            settings: the node's.
            overlay: receives the points of each image.
            object_ids: receives the points too, and gives the object of each.
            draws_overlay: whether the overlay is published here.

        """
        self.counters, self.settings = ImageCounters(started=time.monotonic()), settings
        self._node, self._logger = context.node, context.logger
        self._live = tracker.live(worker, context.first_id)
        self._images_of_step = tracker.bundle.manifest.input.frames_of_step
        self._population = Population(self._live)
        self._publishers = PointPublishers(context.node, context.output_prefix)
        self._results = ResultQueue(context.node, self._publish_result, self._is_awaited)
        self._geometry = CameraGeometry(context, settings, self._results.release)
        self._rate_logged = False
        self._update: LiveUpdate | None = None
        self._header, self._size = Header(), (0, 0)
        self._overlay, self._object_ids = overlay, object_ids
        self._draws_overlay = draws_overlay
        self._checked_region: tuple[Size, Region] | None = None
        self._mask_subscription = SensorSubscription(
            context.node,
            Image,
            f"{context.output_prefix}population_mask",
            self._on_population_mask,
            reliability="auto",
            latched=True,
        )
        self._intake = RequestIntake(context, self._population, lambda: self.settings)
        # Reliable and deep, because a lost request is not repeated.
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._clicks = create_subscription(
            context.node, PointStamped, f"{context.output_prefix}add_point", self._on_click, qos
        )

    @property
    def next_id(self) -> int:
        """The id of the next point."""
        return self._live.next_id

    def close(self) -> None:
        """Destroy all topics."""
        self._intake.close()
        self._node.destroy_subscription(self._clicks)
        self._mask_subscription.close()
        self._geometry.close()
        self._results.close()
        self._publishers.close()
        self._live.close()

    def process(self, image: CameraImage) -> None:
        """Track all points into the next image, and publish them."""
        start = time.perf_counter()
        height, width = image.frame.shape[:2]
        self._check_region((height, width))
        update = self._live.push(image.frame, image.stamp / NANOSECONDS_PER_SECOND)
        self._population.update(image.frame, update, self.settings)
        tracked = time.perf_counter()
        self._publish_pixels(image, update)
        published = time.perf_counter()

        def measure(publish_seconds: float) -> Timing:
            return Timing(
                image.latency(),
                image.decode_seconds,
                tracked - start,
                published - tracked + publish_seconds,
            )

        objects = self._object_ids.look_up(update.ids)
        size = image.frame.shape[:2]
        requested = self._population.find_requested(update.ids)
        result = PointResult(image.header, image.stamp, size, update, objects, requested, measure)
        self._results.add(result)
        self._intake.place_waiting(image.stamp)

    def handle_failure(self, error: Exception) -> None:
        """Log and count a failure of tracking, and reset."""
        self.counters.count_failure(time.monotonic(), error)
        self._logger.error(
            f"Point tracking failed and is reset: {self.counters.last_error}",
            throttle_duration_sec=LOG_INTERVAL,
        )
        self.reset()

    def reset(self) -> None:
        """Discard all points and images."""
        if self._population.requested_count:
            self._logger.warning(
                f"{self._population.requested_count} requested points are discarded."
            )
        self._live.reset()
        self._population.reset()
        self._reset_outputs()

    def restart(self, *, after_pause: bool) -> None:
        """Discard all images; search for requested points, and after a pause for all."""
        requested = self._population.restart(keep_population=after_pause)
        if requested:
            self._logger.info(
                f"The {requested} requested points are invisible until they are found in an image."
            )
        self._reset_outputs()

    def _reset_outputs(self) -> None:
        self._intake.forget_images()
        self._results.release_all()
        self._publishers.reset()
        self._overlay.reset()
        self._object_ids.reset()
        self._update = None

    def reset_on_request(self) -> str:
        """Discard all points; return how many there were."""
        discarded = f"{len(self._live.ids)} points"
        self._intake.refuse_waiting()
        self.reset()
        return discarded

    def remove(self, request: RemoveRequest) -> Answer | None:
        """Remove a point."""
        if request.kind is not Kind.POINT:
            return None
        if not self._population.remove(request.id):
            return Answer(False, f"There is no point with the id {request.id}.")
        return Answer(True, f"Point {request.id} is removed.")

    def report(self, state: CameraState, now: float) -> Report:
        """Return the diagnostics of the points.

        Args:
            state: of the camera.
            now: monotonic time in seconds.

        """
        rate, update = self._live.described_rate, self._update
        settled = self.counters.window_length(now) > RATE_SETTLING_TIME
        if rate is not None and not self._rate_logged and settled:
            self._log_rate(rate, self.counters.output_rate(now))
        visible = 0 if update is None else int(update.visible.sum())
        alive, images = len(self._live.ids), self._images_of_step
        summary = self._add_geometry(summarize_points(alive, visible, rate, images), now)
        return build_camera_report(self.counters, state, summary, self.settings, now)

    def _add_geometry(self, summary: ConsumerSummary, now: float) -> ConsumerSummary:
        """Return a summary with what is known of calibration and depth."""
        first = self.counters.first_image
        seconds = 0.0 if first is None else now - first
        values, problems = self._geometry.describe(
            seconds, self.settings, needed=self._publishers.needs_calibration
        )
        return replace(
            summary, values=summary.values | values, problems=(*summary.problems, *problems)
        )

    def _publish_pixels(self, image: CameraImage, update: LiveUpdate) -> None:
        size = image.frame.shape[:2]
        self._update, self._header, self._size = update, image.header, size
        camera = self._geometry.camera_for(size)
        self._publishers.publish_pixels(image.header, update, camera, self.settings)
        self._object_ids.set_points(update)
        self._overlay.add_points(update, self.settings)
        if self._draws_overlay:
            self._overlay.publish(image, self._overlay.trail, self.settings)

    def _publish_result(self, result: PointResult) -> None:
        start = time.perf_counter()
        if self._publishers.needs_positions:
            update = result.update
            positions = self._geometry.place(update.points, result, self.settings)
            header = self._geometry.header_for(result.header, self.settings)
            self._publishers.publish_positions(
                header, update, result.objects, positions, result.requested
            )
        timing = result.measure(time.perf_counter() - start)
        self.counters.count_result(time.monotonic(), timing)

    def _is_awaited(self, result: PointResult, waited: float) -> bool:
        """Return whether a result waits on for its depth or its transform.

        Args:
            result: the points of an image.
            waited: seconds for which it has waited.

        """
        if not self._publishers.needs_positions:
            return False
        settings, geometry = self.settings, self._geometry
        if waited < settings.depth_wait and geometry.is_depth_awaited(result.stamp, settings):
            return True
        return waited < settings.transform_wait and geometry.is_transform_awaited(
            result.header, settings
        )

    def _check_region(self, size: Size) -> None:
        """Warn once of a region that reaches beyond the image.

        Args:
            size: (height, width) of the image.

        """
        checked, self._checked_region = self._checked_region, (size, self.settings.region)
        if checked == self._checked_region:
            return
        if excess := describe_excess(size, self.settings.region):
            self._logger.warning(excess)

    def _log_rate(self, rate: float, processed: float) -> None:
        """Log how many of the processed images, those that max_rate does not leave out, it encodes.

        Both are rates per second, over different spans: the model's may be the larger by a little.
        """
        self._rate_logged = True
        images = self._images_of_step
        if images > 1:
            self._logger.info(
                f"The model reads {images} images at a time, {rate:.1f} times per second, of "
                f"{processed:.1f} processed images per second; it describes the last of them, and "
                "in the others optical flow tracks the points."
            )
        elif rate < 0.95 * processed:
            self._logger.info(
                f"The model encodes {rate:.1f} of {processed:.1f} processed images per second; in "
                "the others optical flow tracks the points."
            )
        else:
            self._logger.info(
                f"The model encodes all images: {processed:.1f} per second are processed."
            )

    def _on_population_mask(self, message: Image) -> None:
        try:
            mask = read_population_mask(message)
        except InputError as error:
            self._logger.warning(f"{error} It is not used.")
            return
        self._population.area.set_mask(mask)
        self._logger.info(
            f"~/population_mask: points are put in {(mask > 0).mean():.0%} of the image.",
            throttle_duration_sec=LOG_INTERVAL,
        )

    def _on_click(self, point: PointStamped) -> None:
        known = self._header.frame_id
        is_elsewhere = point.header.frame_id not in ("", known)
        stamp = to_nanoseconds(point.header.stamp)
        deadline = time.monotonic() + _TRANSFORM_PATIENCE if is_elsewhere and known else math.inf
        self._intake.submit(stamp, lambda: self._read_click(point), deadline)

    def _read_click(self, point: PointStamped) -> Floats:
        camera, header = self._geometry.camera_for(self._size), self._header
        try:
            return read_clicked_pixel(
                point,
                camera,
                header.frame_id,
                lambda one, known: self._geometry.project(one, known, header),
            )
        except MissingTransformError as error:
            raise NotReadyError(f"~/add_point: {error}") from error
