"""One camera: its topics, its stream of images, and the points in it."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from vditrack import Tracker
from vditrack.errors import InputError
from vditrack.live import LiveUpdate
from vditrack.messages.images import Frame, decode_compressed, decode_image
from vditrack_ros.arrivals import SECOND, Arrival, Arrivals
from vditrack_ros.diagnostics import Counts, Report, State, Timing, camera_report
from vditrack_ros.middleware import skipped_before, subscribe_telling_losses, tells_sequence
from vditrack_ros.parameters import Settings
from vditrack_ros.population import Population
from vditrack_ros.publishing import Publishers
from vditrack_ros.queries import pixel_of_click, pixels_of_cloud
from vditrack_ros.sight import Sight, nanoseconds

_AGAIN = 5.0
"""Seconds between log messages of the same kind."""
_SETTLED = 3.0
"""Seconds after which rates are worth telling."""


class TrackedCamera:
    """Everything of one camera, from its making to `close`."""

    def __init__(
        self, node: LifecycleNode, name: str, tracker: Tracker, worker: Executor, settings: Settings
    ) -> None:
        """Subscribe to a camera's topics and offer its points.

        Args:
            node: has the topics.
            name: of the camera, below which all its topics are; may be empty.
            tracker: shared by all cameras.
            worker: runs its model, for all cameras.
            settings: the node's; may be replaced at any time.

        """
        self.name, self.settings = name, settings
        self.counts = Counts(since=time.monotonic())
        self._node = node
        self._logger = node.get_logger().get_child(name) if name else node.get_logger()
        self._live = tracker.live(worker)
        self._population = Population(self._live)
        self._arrivals = Arrivals()
        self._sight = Sight(self._logger)
        self._paused, self._rate_told = False, False
        self._update: LiveUpdate | None = None
        self._frame_id, self._size = "", (0, 0)
        self._sequence: tuple[bytes, int] | None = None
        inputs, own = (f"{name}/", f"~/{name}/") if name else ("", "~/")
        self._publishers = Publishers(node, own)
        self._subscriptions = self._subscribe(inputs, own)
        self._services = [
            node.create_service(Trigger, f"{own}reset", self._on_reset),
            node.create_service(SetBool, f"{own}pause", self._on_pause),
        ]

    @property
    def topic(self) -> str:
        """Of its images."""
        return str(self._images.topic_name)

    def close(self) -> None:
        """Free all that was made."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for service in self._services:
            self._node.destroy_service(service)
        self._publishers.close()
        self._live.close()

    def report(self) -> Report:
        """Tell how well this camera is kept up with."""
        now, update = time.monotonic(), self._update
        rate = self._live.described_rate
        state = State(
            topic=self.topic,
            publishers=self._node.count_publishers(self.topic),
            paused=self._paused,
            alive=len(self._live.ids),
            visible=0 if update is None else int(update.visible.sum()),
            described_rate=rate,
        )
        if rate is not None and not self._rate_told and self.counts.span(now) > _SETTLED:
            self._tell_rate(rate, self.counts.rate_in(now))
        return camera_report(self.counts, state, self.settings, now)

    def _subscribe(self, inputs: str, own: str) -> list[Any]:
        reliability = ReliabilityPolicy[self.settings.reliability.upper()]
        newest = QoSProfile(depth=1, reliability=reliability)
        # No click may be lost.
        asking = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        subscribe = self._node.create_subscription
        # What is ready at the same time is taken in this order: an image finds its own depth.
        others = [
            subscribe(CameraInfo, f"{inputs}camera_info", self._sight.hear_info, newest),
            subscribe(Image, f"{inputs}depth", self._sight.hear_depth, newest),
            subscribe(PointCloud2, f"{own}add_points", self._on_cloud, asking),
            subscribe(PointStamped, f"{own}add_point", self._on_click, asking),
        ]
        compressed = self.settings.image_transport == "compressed"
        self._decode: Callable[[Any], Frame] = decode_compressed if compressed else decode_image
        self._images = subscribe_telling_losses(
            self._node,
            CompressedImage if compressed else Image,
            f"{inputs}image/compressed" if compressed else f"{inputs}image",
            self._on_counted_image if tells_sequence() else self._on_image,
            newest,
            self._on_lost,
        )
        return [*others, self._images]

    def _on_counted_image(self, message: Any, info: Any) -> None:  # noqa: ANN401
        self._sequence, skipped = skipped_before(info, self._sequence)
        if skipped:
            self.counts.drop(time.monotonic(), "overtaken", skipped)
        self._on_image(message)

    def _on_lost(self, event: Any) -> None:  # noqa: ANN401
        self.counts.drop(time.monotonic(), "lost", event.total_count_change)

    def _on_image(self, message: Any) -> None:  # noqa: ANN401
        arrived = time.monotonic_ns()
        self.counts.image(arrived / SECOND)
        if self._paused:
            return
        stamp = nanoseconds(message.header.stamp)
        if stamp == 0:
            # Some drivers leave it empty.
            if self._is_taken(arrived, 0):
                self._track(message, arrived, lambda: (time.monotonic_ns() - arrived) / SECOND)
        elif self._is_taken(stamp, self._age(stamp)):
            self._track(message, stamp, lambda: self._age(stamp) / SECOND)

    def _age(self, stamp: int) -> int:
        """Nanoseconds by the node's clock, which follows the simulation's if there is one."""
        return int(self._node.get_clock().now().nanoseconds) - stamp

    def _is_taken(self, stamp: int, age: int) -> bool:
        settings = self.settings
        arrival = self._arrivals.judge(stamp, age, settings.max_age, settings.max_gap)
        if arrival is Arrival.OLD:
            self.counts.drop(time.monotonic(), "old")
            self._logger.warning(
                f"An image is {age / SECOND:.3g} s old and was dropped: max_age is "
                f"{settings.max_age:g}. Set the clocks of camera and node by each other; play bags "
                "with --clock and use_sim_time:=true; or set max_age to 0.",
                throttle_duration_sec=_AGAIN,
            )
        elif arrival is Arrival.BACK:
            self._logger.warning(
                "The images' clock went back: tracking starts over. If it does so often, two "
                "cameras may publish on one topic.",
                throttle_duration_sec=_AGAIN,
            )
            self._start_over()
        elif arrival is Arrival.GAP:
            self._logger.warning(
                f"No image was taken for longer than max_gap, {settings.max_gap:g} s: tracking "
                "starts over.",
                throttle_duration_sec=_AGAIN,
            )
            self._start_over()
        return arrival not in (Arrival.OLD, Arrival.REPEATED)

    def _track(self, message: Any, stamp: int, latency: Callable[[], float]) -> None:  # noqa: ANN401
        began = time.perf_counter()
        try:
            frame = self._decode(message)
        except InputError as error:
            self.counts.drop(time.monotonic(), "malformed")
            self.counts.last_error = str(error)
            self._logger.error(f"Dropped: {error}", throttle_duration_sec=_AGAIN)
            return
        decoded = time.perf_counter()
        # Whatever goes wrong with one image, the next may be better.
        try:
            update = self._live.push(frame, stamp / SECOND)
            self._population.step(frame, update, self.settings)
            tracked = time.perf_counter()
            self._hand_out(message.header, frame, update)
        except Exception as error:
            self._fail(error)
            return
        published = time.perf_counter()
        timing = Timing(latency(), decoded - began, tracked - decoded, published - tracked)
        self.counts.tracked(time.monotonic(), timing)

    def _hand_out(self, header: Header, frame: Frame, update: LiveUpdate) -> None:
        self._update, self._frame_id, self._size = update, header.frame_id, frame.shape[:2]
        self._publishers.publish(header, frame, update, self._sight, self.settings)

    def _fail(self, error: Exception) -> None:
        self.counts.drop(time.monotonic(), "failed")
        self.counts.last_error = f"{type(error).__name__}: {error}"
        self._logger.error(
            f"Tracking failed and starts over: {self.counts.last_error}",
            throttle_duration_sec=_AGAIN,
        )
        self._start_over()
        self._arrivals.reset()

    def _start_over(self) -> None:
        if self._population.asked:
            self._logger.warning(f"{self._population.asked} points asked for are forgotten.")
        self._live.reset()
        self._population.reset()
        self._publishers.reset()
        self._update = None

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

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        count = len(self._live.ids)
        self._start_over()
        response.success, response.message = True, f"{count} points forgotten"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success, response.message = True, "paused" if request.data else "goes on"
        return response
