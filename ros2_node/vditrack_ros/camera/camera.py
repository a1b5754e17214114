"""One camera: its images, and what follows them."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from vditrack import Tracker
from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.ros_messages.images import decode_compressed, decode_image
from vditrack_ros.camera.image_gate import Arrival, Arrivals
from vditrack_ros.camera.subscription import (
    skipped_before,
    subscribe_telling_losses,
    tells_sequence,
)
from vditrack_ros.consumer import AGAIN, Follower, Shot, Site
from vditrack_ros.diagnostics import Report, State
from vditrack_ros.masks.tracking import ObjectMasks
from vditrack_ros.overlay import Overlay
from vditrack_ros.parameters import Settings
from vditrack_ros.points.object_ids import PointObjects
from vditrack_ros.points.tracking import TrackedPoints
from vditrack_ros.stamps import SECOND, nanoseconds


@dataclass(frozen=True)
class Model:
    """What runs for all cameras."""

    tracker: Tracker
    points: Executor
    """Runs the model for points."""
    masks: Executor
    """Runs the model for masks, so that points need not wait for it."""


class TrackedCamera:
    """Everything of one camera, from its making to `close`."""

    def __init__(self, node: LifecycleNode, name: str, model: Model, settings: Settings) -> None:
        """Subscribe to a camera's topics and offer what follows its images.

        Args:
            node: has the topics.
            name: of the camera, below which all its topics are; may be empty.
            model: shared by all cameras.
            settings: the node's.

        """
        self.name, self._settings = name, settings
        self._node = node
        self._logger = node.get_logger().get_child(name) if name else node.get_logger()
        self._arrivals = Arrivals()
        self._paused = False
        self._sequence: tuple[bytes, int] | None = None
        inputs, own = (f"{name}/", f"~/{name}/") if name else ("", "~/")
        site = Site(node, inputs, own, self._logger)
        self._overlay = Overlay(site)
        # What is ready at the same time is taken in the order in which it was subscribed to: an
        # image finds its own depth, and its mask.
        self._followers = _followers(site, model, settings, self._overlay)
        self._images = self._subscribe(inputs)
        self._services = [
            node.create_service(Trigger, f"{own}reset", self._on_reset),
            node.create_service(SetBool, f"{own}pause", self._on_pause),
        ]

    @property
    def topic(self) -> str:
        """Of its images."""
        return str(self._images.topic_name)

    def use(self, settings: Settings) -> None:
        """Go on with other settings."""
        self._settings = settings
        for follower in self._followers.values():
            follower.settings = settings

    def close(self) -> None:
        """Free all that was made."""
        self._node.destroy_subscription(self._images)
        for service in self._services:
            self._node.destroy_service(service)
        for follower in self._followers.values():
            follower.close()
        self._overlay.close()

    def reports(self) -> dict[str, Report]:
        """Tell, by names, how well this camera is kept up with."""
        state = State(self.topic, self._node.count_publishers(self.topic), self._paused)
        now = time.monotonic()
        return {
            f"{self.topic}{suffix}": follower.report(state, now)
            for suffix, follower in self._followers.items()
        }

    def _subscribe(self, inputs: str) -> Any:  # noqa: ANN401
        reliability = ReliabilityPolicy[self._settings.reliability.upper()]
        compressed = self._settings.image_transport == "compressed"
        self._decode: Callable[[Any], Frame] = decode_compressed if compressed else decode_image
        return subscribe_telling_losses(
            self._node,
            CompressedImage if compressed else Image,
            f"{inputs}image/compressed" if compressed else f"{inputs}image",
            self._on_counted_image if tells_sequence() else self._on_image,
            QoSProfile(depth=1, reliability=reliability),
            self._on_lost,
        )

    def _on_counted_image(self, message: Any, info: Any) -> None:  # noqa: ANN401
        self._sequence, skipped = skipped_before(info, self._sequence)
        if skipped:
            self._drop("overtaken", skipped)
        self._on_image(message)

    def _on_lost(self, event: Any) -> None:  # noqa: ANN401
        self._drop("lost", event.total_count_change)

    def _on_image(self, message: Any) -> None:  # noqa: ANN401
        arrived = time.monotonic_ns()
        for follower in self._followers.values():
            follower.counts.image(arrived / SECOND)
        if self._paused:
            return
        stamp = nanoseconds(message.header.stamp)
        if stamp == 0:
            # Some drivers leave it empty.
            if self._is_taken(arrived, 0):
                self._take(message, arrived, lambda: (time.monotonic_ns() - arrived) / SECOND)
        elif self._is_taken(stamp, self._age(stamp)):
            self._take(message, stamp, lambda: self._age(stamp) / SECOND)

    def _age(self, stamp: int) -> int:
        """Nanoseconds by the node's clock, which follows the simulation's if there is one."""
        return int(self._node.get_clock().now().nanoseconds) - stamp

    def _is_taken(self, stamp: int, age: int) -> bool:
        settings = self._settings
        arrival = self._arrivals.judge(stamp, age, settings.max_age, settings.max_gap)
        if arrival is Arrival.OLD:
            self._drop("old")
            self._logger.warning(
                f"An image is {age / SECOND:.3g} s old and was dropped: max_age is "
                f"{settings.max_age:g}. Set the clocks of camera and node by each other; play bags "
                "with --clock and use_sim_time:=true; or set max_age to 0.",
                throttle_duration_sec=AGAIN,
            )
        elif arrival is Arrival.BACK:
            self._logger.warning(
                "The images' clock went back: tracking starts over. If it does so often, two "
                "cameras may publish on one topic.",
                throttle_duration_sec=AGAIN,
            )
            self._start_over()
        elif arrival is Arrival.GAP:
            self._logger.warning(
                f"No image was taken for longer than max_gap, {settings.max_gap:g} s: tracking "
                "starts over.",
                throttle_duration_sec=AGAIN,
            )
            self._start_over()
        return arrival not in (Arrival.OLD, Arrival.REPEATED)

    def _take(self, message: Any, stamp: int, latency: Callable[[], float]) -> None:  # noqa: ANN401
        began = time.perf_counter()
        try:
            frame = self._decode(message)
        except InputError as error:
            self._drop("malformed", error=str(error))
            self._logger.error(f"Dropped: {error}", throttle_duration_sec=AGAIN)
            return
        shot = Shot(message.header, frame, stamp, latency, time.perf_counter() - began)
        for follower in self._followers.values():
            # Whatever goes wrong with one image, the next may be better.
            try:
                follower.take(shot)
            except Exception as error:
                follower.fail(error)
                self._arrivals.reset()

    def _drop(self, reason: str, count: int = 1, error: str = "") -> None:
        now = time.monotonic()
        for follower in self._followers.values():
            follower.counts.drop(now, reason, count)
            follower.counts.last_error = error or follower.counts.last_error

    def _start_over(self) -> None:
        for follower in self._followers.values():
            follower.start_over()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        told = [follower.forget() for follower in self._followers.values()]
        response.success, response.message = True, f"{' and '.join(told)} forgotten"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success, response.message = True, "paused" if request.data else "goes on"
        return response


def _followers(
    site: Site, model: Model, settings: Settings, overlay: Overlay
) -> dict[str, Follower]:
    """What follows a camera's images, by what its reports' names end with."""
    followers: dict[str, Follower] = {}
    objects = PointObjects()
    if settings.mode != "masks":
        # Who comes last draws, with what those before have noted.
        draws = settings.mode == "points"
        followers[""] = TrackedPoints(
            site, model.tracker, model.points, settings, overlay, objects, draws=draws
        )
    if settings.mode != "points":
        followers[": masks"] = ObjectMasks(
            site, model.tracker, model.masks, settings, overlay, objects
        )
    return followers
