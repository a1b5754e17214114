"""Subscription to one camera, and distribution of its images to the consumers."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import sensor_msgs.msg
from rclpy import get_rmw_implementation_identifier
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import SetBool, Trigger

from vditrack import Tracker
from vditrack.errors import InputError
from vditrack.ros_messages.brightness import LiveCurve
from vditrack.ros_messages.image_transport import IMAGE_TRANSPORTS
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds
from vditrack_ros.camera.image_gate import GateLimits, ImageGate, ImageTimes, Verdict
from vditrack_ros.consumer import LOG_INTERVAL, CameraContext, CameraImage, Consumer
from vditrack_ros.diagnostics import CameraState, Report
from vditrack_ros.masks.propagation import MaskWorkers
from vditrack_ros.masks.tracking import MaskConsumer
from vditrack_ros.overlay import OverlayPublisher
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.points.object_ids import PointObjectIds
from vditrack_ros.points.tracking import PointConsumer
from vditrack_ros.services import (
    Answer,
    RemoveRequest,
    create_request_service,
    read_removal,
)
from vditrack_ros.transforms import FrameTransforms
from vditrack_ros.transport.fastdds import explain_losses
from vditrack_ros.transport.sensor_subscription import SensorSubscription
from vditrack_ros.transport.topics import resolve_transport_topic

_QUEUE_DEPTH = 5
"""Images that wait while the node is busy, so that none is left out because one takes longer. Fast
DDS also keeps images in it whose fragments have not all arrived."""
_LOSS_LOG_INTERVAL = 30.0
"""Minimum number of seconds between two warnings about lost images."""


@dataclass(frozen=True)
class SharedModel:
    """The loaded model, shared by all cameras."""

    tracker: Tracker
    points_worker: Executor
    """Runs the model for points."""
    mask_workers: MaskWorkers
    """Propagate masks, so that points do not wait for them."""


class CameraPipeline:
    """The topics and services of one camera, from construction to `close`.

    Images are subscribed to from `activate` to `deactivate`. What is tracked stays meanwhile, as
    in a pause of the camera.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        model: SharedModel,
        transforms: FrameTransforms,
        settings: Settings,
        first_id: int = 0,
    ) -> None:
        """Create the publishers, the services and all subscriptions but that to the images.

        Args:
            node: owns the topics.
            name: of the camera, the prefix of its topics; may be empty.
            model: shared by all cameras.
            transforms: shared by all cameras.
            settings: the node's.
            first_id: of the first point.

        """
        self.name, self._settings = name, settings
        self._node = node
        self._logger = node.get_logger().get_child(name) if name else node.get_logger()
        self._gate = ImageGate()
        self._brightness, self._logged_curves = LiveCurve(), 0
        self._paused = False
        inputs, outputs = (f"{name}/", f"~/{name}/") if name else ("", "~/")
        context = CameraContext(node, inputs, outputs, self._logger, transforms, first_id)
        self._overlay = OverlayPublisher(context)
        self._consumers = _create_consumers(context, model, settings, self._overlay)
        self._image = resolve_transport_topic(node, f"{inputs}image", settings.image_transport)
        self._subscription: SensorSubscription | None = None
        self._services = [
            node.create_service(Trigger, f"{outputs}reset", self._on_reset),
            node.create_service(SetBool, f"{outputs}pause", self._on_pause),
            create_request_service(node, outputs, "remove", read_removal, self._on_remove),
        ]

    @property
    def topic(self) -> str:
        """Resolved name of the image topic."""
        return str(self._node.resolve_topic_name(self._image))

    @property
    def next_id(self) -> int:
        """The id of the next point."""
        return max((consumer.next_id for consumer in self._consumers.values()), default=0)

    def activate(self) -> None:
        """Subscribe to the images."""
        for consumer in self._consumers.values():
            consumer.counters.start(time.monotonic())
        # rclpy handles messages that are ready together in the order of the subscriptions. Depth
        # and masks are subscribed to first, so that they are known when their image is handled.
        transport = IMAGE_TRANSPORTS[self._settings.image_transport]
        self._decode = transport.decode
        self._subscription = SensorSubscription(
            self._node,
            getattr(sensor_msgs.msg, transport.message_type),
            self._image,
            self._on_image,
            reliability=self._settings.reliability,
            depth=_QUEUE_DEPTH,
        )

    def deactivate(self) -> None:
        """Receive no more images."""
        if self._subscription is not None:
            self._subscription.close()
        self._subscription = None

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        for consumer in self._consumers.values():
            consumer.settings = settings

    def close(self) -> None:
        """Destroy all topics and services."""
        self.deactivate()
        for service in self._services:
            self._node.destroy_service(service)
        for consumer in self._consumers.values():
            consumer.close()
        self._overlay.close()

    def build_reports(self) -> dict[str, Report]:
        """Return the diagnostics of each consumer, by the name of its task; while active."""
        assert self._subscription is not None
        self._count_losses()
        now, reliable = time.monotonic(), self._subscription.is_reliable
        remedy = explain_losses(get_rmw_implementation_identifier(), reliable=reliable)
        state = CameraState(
            self.topic, self._subscription.publisher_count, self._paused, reliable, remedy
        )
        self._warn_of_losses(state, now)
        task = f"camera {self.name}".rstrip()
        return {
            f"{task}{suffix}": consumer.report(state, now)
            for suffix, consumer in self._consumers.items()
        }

    def _count_losses(self) -> None:
        assert self._subscription is not None
        losses = self._subscription.take_losses()
        for reason, count in losses._asdict().items():
            if count:
                self._count_drops(reason, count)

    def _warn_of_losses(self, state: CameraState, now: float) -> None:
        """Log the cause and the remedy if too many images are lost on the way."""
        counters = next(iter(self._consumers.values())).counters
        lost, sent = counters.lost(now), counters.sent(now)
        if lost > self._settings.warn_dropped * sent:
            self._logger.warning(
                f"{lost:.0f} of {sent:.0f} images on {self.topic} were lost on the way. "
                f"{state.loss_remedy}",
                throttle_duration_sec=_LOSS_LOG_INTERVAL,
            )

    def _on_image(self, message: Any) -> None:  # noqa: ANN401
        arrival = time.monotonic_ns()
        self._count_losses()
        for consumer in self._consumers.values():
            consumer.counters.count_image(arrival / NANOSECONDS_PER_SECOND)
        if self._paused:
            return
        times = ImageTimes(to_nanoseconds(message.header.stamp), arrival, self._now())
        verdict, stamp = self._gate.check(times, self._limits())
        self._act_on(verdict, times)
        if verdict.is_drop:
            self._count_drops(verdict.value)
        elif verdict is Verdict.LEFT_OUT:
            for consumer in self._consumers.values():
                consumer.counters.left_out += 1
        elif stamp is None:
            self._process(message, arrival, lambda: time.monotonic_ns() - arrival)
        else:
            self._process(message, stamp, lambda: self._now() - stamp)

    def _now(self) -> int:
        """Return the nanoseconds of the node's clock, which may be simulated."""
        return int(self._node.get_clock().now().nanoseconds)

    def _limits(self) -> GateLimits:
        settings = self._settings
        return GateLimits(
            settings.max_age, settings.max_gap, settings.max_lateness, settings.max_rate
        )

    def _act_on(self, verdict: Verdict, times: ImageTimes) -> None:
        """Log why the gate objects to an image, and reset if it must."""
        # rclpy throttles by place in the code, so each warning has a call of its own.
        settings = self._settings
        if verdict is Verdict.TOO_OLD:
            age = (times.now - times.stamp) / NANOSECONDS_PER_SECOND
            self._logger.warning(
                f"An image is {age:.3g} s old and was dropped: max_age is {settings.max_age:g}. "
                "Either the machine is overloaded, or the clocks of camera and node differ: "
                "synchronize them; play bags with --clock and use_sim_time:=true; or set max_age "
                "to 0.",
                throttle_duration_sec=LOG_INTERVAL,
            )
        elif verdict is Verdict.UNSTAMPED:
            self._logger.warning(
                "An image has the stamp zero, and others have stamps: it was dropped.",
                throttle_duration_sec=LOG_INTERVAL,
            )
        elif verdict is Verdict.LATE:
            self._logger.warning(
                "An image came after one with a later stamp: it was dropped.",
                throttle_duration_sec=LOG_INTERVAL,
            )
        elif verdict is Verdict.STRAY:
            jump = self._gate.measure_jump()
            self._logger.warning(
                f"The stamp of an image jumped by {jump:+.3g} s: it was dropped. If the next image "
                "agrees, the clock was set; if not, check that only one camera publishes on the "
                "topic.",
                throttle_duration_sec=LOG_INTERVAL,
            )
        elif verdict is Verdict.CLOCK_SET:
            self._logger.warning(
                "The clock of the images was set: tracking starts over. If this repeats, and "
                f"images are late by more than max_lateness, {settings.max_lateness:g} s, raise "
                "it.",
                throttle_duration_sec=LOG_INTERVAL,
            )
            self._restart(after_pause=False)
        elif verdict is Verdict.AFTER_GAP:
            self._logger.warning(
                f"No image came for longer than max_gap, {settings.max_gap:g} s: tracking starts "
                "over, and points are searched for.",
                throttle_duration_sec=LOG_INTERVAL,
            )
            self._restart(after_pause=True)

    def _process(self, message: Any, stamp: int, age: Callable[[], int]) -> None:  # noqa: ANN401
        """Decode an image and pass it to the consumers.

        Args:
            message: the image.
            stamp: in nanoseconds.
            age: returns the nanoseconds since the stamp.

        """
        start = time.perf_counter()
        try:
            frame = self._decode(message, self._brightness.reduce)
        except InputError as error:
            self._count_drops("malformed", error=str(error))
            self._logger.error(f"Dropped: {error}", throttle_duration_sec=LOG_INTERVAL)
            return
        decode_seconds = time.perf_counter() - start
        self._log_brightness()
        image = CameraImage(
            message.header, frame, stamp, lambda: age() / NANOSECONDS_PER_SECOND, decode_seconds
        )
        for consumer in self._consumers.values():
            # A failure with one image must not end the node: the next image may succeed.
            try:
                consumer.process(image)
            except Exception as error:
                consumer.handle_failure(error)
                self._gate.reset()

    def _log_brightness(self) -> None:
        """Log the range of 16-bit values that are reduced to 8 bits, when it is taken."""
        if self._brightness.times_taken > self._logged_curves:
            self._logged_curves = self._brightness.times_taken
            self._logger.info(
                "The images have 16 bits. From now on, values from "
                f"{self._brightness.curve} are reduced to 8 bits."
            )

    def _count_drops(self, reason: str, count: int = 1, error: str = "") -> None:
        now = time.monotonic()
        for consumer in self._consumers.values():
            consumer.counters.count_drops(now, reason, count)
            consumer.counters.last_error = error or consumer.counters.last_error

    def _restart(self, *, after_pause: bool) -> None:
        for consumer in self._consumers.values():
            consumer.restart(after_pause=after_pause)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._gate.reset()
        discarded = [consumer.reset_on_request() for consumer in self._consumers.values()]
        response.success, response.message = True, f"{' and '.join(discarded)} discarded"
        return response

    def _on_remove(self, request: RemoveRequest) -> Answer:
        for consumer in self._consumers.values():
            if (answer := consumer.remove(request)) is not None:
                return answer
        kind = request.kind.name.lower()
        return Answer(False, f"The mode {self._settings.mode} tracks no {kind}s.")

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success, response.message = True, "paused" if request.data else "resumed"
        return response


def _create_consumers(
    context: CameraContext, model: SharedModel, settings: Settings, overlay: OverlayPublisher
) -> dict[str, Consumer]:
    """Create the consumers that the mode asks for, by the suffix of their status's name."""
    consumers: dict[str, Consumer] = {}
    object_ids = PointObjectIds()
    if settings.mode != "masks":
        # The last consumer draws the overlay, which then shows the results of both.
        draws_overlay = settings.mode == "points"
        consumers[""] = PointConsumer(
            context,
            model.tracker,
            model.points_worker,
            settings,
            overlay,
            object_ids,
            draws_overlay=draws_overlay,
        )
    if settings.mode != "points":
        consumers[" masks"] = MaskConsumer(
            context, model.tracker, model.mask_workers, settings, overlay, object_ids
        )
    return consumers
