"""Points in one camera's images."""

import time
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from vditrack import Tracker
from vditrack.errors import InputError
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.calibration import Sight
from vditrack_ros.consumer import AGAIN, SETTLED, Shot, Site
from vditrack_ros.counters import Counts, Timing
from vditrack_ros.diagnostics import Report, State, camera_report, points_followed
from vditrack_ros.overlay import Overlay
from vditrack_ros.parameters import Settings
from vditrack_ros.points.object_ids import PointObjects
from vditrack_ros.points.population import Population
from vditrack_ros.points.publishers import Publishers
from vditrack_ros.points.requests import pixel_of_click, pixels_of_cloud
from vditrack_ros.stamps import SECOND


class TrackedPoints:
    """Points, those asked for and those that fill the picture, in every image."""

    def __init__(
        self,
        site: Site,
        tracker: Tracker,
        worker: Executor,
        settings: Settings,
        overlay: Overlay,
        objects: PointObjects,
        *,
        draws: bool,
    ) -> None:
        """Offer a camera's points.

        Args:
            site: where the camera is.
            tracker: shared by all cameras.
            worker: runs its model, for all cameras.
            settings: the node's.
            overlay: is told where points are.
            objects: is told so too, and knows which object each is on.
            draws: whether the overlay is drawn here.

        """
        self.counts, self.settings = Counts(since=time.monotonic()), settings
        self._node, self._logger = site.node, site.logger
        self._live = tracker.live(worker)
        self._population = Population(self._live)
        self._sight = Sight(site.logger)
        self._rate_told = False
        self._update: LiveUpdate | None = None
        self._frame_id, self._size = "", (0, 0)
        self._publishers = Publishers(site.node, site.own)
        self._overlay, self._objects, self._draws = overlay, objects, draws
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy[settings.reliability.upper()])
        # No click may be lost.
        asking = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        subscribe = site.node.create_subscription
        self._subscriptions = [
            subscribe(CameraInfo, f"{site.inputs}camera_info", self._sight.hear_info, newest),
            subscribe(Image, f"{site.inputs}depth", self._sight.hear_depth, newest),
            subscribe(PointCloud2, f"{site.own}add_points", self._on_cloud, asking),
            subscribe(PointStamped, f"{site.own}add_point", self._on_click, asking),
        ]

    def close(self) -> None:
        """Free all topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._publishers.close()
        self._live.close()

    def take(self, shot: Shot) -> None:
        """Track all points into the next image."""
        began = time.perf_counter()
        update = self._live.push(shot.frame, shot.stamp / SECOND)
        self._population.step(shot.frame, update, self.settings)
        tracked = time.perf_counter()
        self._hand_out(shot, update)
        published = time.perf_counter()
        timing = Timing(shot.latency(), shot.decoding, tracked - began, published - tracked)
        self.counts.tracked(time.monotonic(), timing)

    def fail(self, error: Exception) -> None:
        """Tell that tracking failed, and start over."""
        self.counts.drop(time.monotonic(), "failed")
        self.counts.last_error = f"{type(error).__name__}: {error}"
        self._logger.error(
            f"Tracking failed and starts over: {self.counts.last_error}",
            throttle_duration_sec=AGAIN,
        )
        self.start_over()

    def start_over(self) -> None:
        """Forget all points and images."""
        if self._population.asked:
            self._logger.warning(f"{self._population.asked} points asked for are forgotten.")
        self._live.reset()
        self._population.reset()
        self._publishers.reset()
        self._overlay.reset()
        self._objects.reset()
        self._update = None

    def forget(self) -> str:
        """Forget all points; tell how many."""
        told = f"{len(self._live.ids)} points"
        self.start_over()
        return told

    def report(self, state: State, now: float) -> Report:
        """Tell how well the camera is kept up with, and of the points."""
        rate, update = self._live.described_rate, self._update
        if rate is not None and not self._rate_told and self.counts.span(now) > SETTLED:
            self._tell_rate(rate, self.counts.rate_in(now))
        visible = 0 if update is None else int(update.visible.sum())
        followed = points_followed(len(self._live.ids), visible, rate)
        return camera_report(self.counts, state, followed, self.settings, now)

    def _hand_out(self, shot: Shot, update: LiveUpdate) -> None:
        size = shot.frame.shape[:2]
        self._update, self._frame_id, self._size = update, shot.header.frame_id, size
        objects = self._objects.of(update.ids)
        self._publishers.publish(shot.header, size, update, objects, self._sight, self.settings)
        self._objects.note(update)
        self._overlay.note(update, self.settings)
        if self._draws:
            self._overlay.publish(shot, self._overlay.trail, self.settings)

    def _tell_rate(self, rate: float, rate_in: float) -> None:
        self._rate_told = True
        between = "; those between are carried by optical flow" if rate < 0.95 * rate_in else ""
        self._logger.info(
            f"The model describes {rate:.1f} of {rate_in:.1f} images a second{between}."
        )

    def _on_cloud(self, cloud: PointCloud2) -> None:
        self._ask(lambda: pixels_of_cloud(cloud))

    def _on_click(self, clicked: PointStamped) -> None:
        camera = self._sight.camera(self._size)
        self._ask(lambda: pixel_of_click(clicked, camera, self._frame_id))

    def _ask(self, read: Callable[[], NDArray[np.float32]]) -> None:
        try:
            asked = self._population.ask(read(), self.settings)
        except InputError as error:
            self._logger.warning(str(error))
            return
        if asked is None:
            self._logger.warning("Points were asked for before the first image. Ask again.")
            return
        self._logger.info(f"{asked.taken} points added.")
        if asked.outside:
            self._logger.warning(f"{asked.outside} points asked for are outside the image.")
        if asked.refused:
            self._logger.warning(
                f"{asked.refused} points asked for were refused: max_points is "
                f"{self.settings.max_points}. Raise it, or reset."
            )
