"""Requests of points from topics and from the service `~/add_points`."""

import math
import time
from collections.abc import Awaitable, Callable

from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import PointCloud2

from vditrack.arrays import Floats
from vditrack.ros_messages.stamps import to_nanoseconds
from vditrack_ros.consumer import CameraContext
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.points.placement import PointPlacement, PointRequest
from vditrack_ros.points.population import Population, RequestResult
from vditrack_ros.points.requests import RequestedPixels, read_pixels, read_requested_pixels
from vditrack_ros.services import Answer, create_request_service
from vditrack_ros.transport.topics import create_subscription

_ANSWER_WITHIN = 5.0
"""Seconds after which the service answers though the image has not come."""
_EXPIRY_PERIOD = 0.5
"""Seconds between two looks at how long requests have waited."""
_DELIVERY = 0.5
"""Seconds for which a service stays after its last answers: a middleware drops what it has not
delivered when a service is destroyed, and rclpy cannot wait for the delivery."""


class RequestIntake:
    """Takes requests of points, lets them wait for their images, and answers."""

    def __init__(
        self, context: CameraContext, population: Population, settings: Callable[[], Settings]
    ) -> None:
        """Create the topic and the service `~/add_points`.

        Args:
            context: of the camera.
            population: receives the points.
            settings: returns the node's settings.

        """
        self._node, self._logger, self._settings = context.node, context.logger, settings
        self._placement = PointPlacement(population)
        # Reliable and deep, because a lost request is not repeated.
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        name = f"{context.output_prefix}add_points"
        self._topic = create_subscription(context.node, PointCloud2, name, self._on_cloud, qos)
        self._service = create_request_service(
            context.node,
            context.output_prefix,
            "add_points",
            read_requested_pixels,
            self._add_requested,
        )
        # Calls are answered in time while no images come too, on the machine's clock.
        self._timer = context.node.create_timer(
            _EXPIRY_PERIOD,
            lambda: self._placement.expire(time.monotonic()),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def close(self) -> None:
        """Refuse the requests that wait, and destroy the topic and the service."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._topic)
        waiting = len(self._placement) > 0
        self._placement.refuse_waiting("Points were refused: the node does not track any longer.")
        executor = self._node.executor
        if waiting and executor is not None:
            # Answers are sent by tasks of the executor, which begins with those that are older.
            executor.create_task(self._destroy_service)
        else:
            self._node.destroy_service(self._service)

    def _destroy_service(self) -> None:
        time.sleep(_DELIVERY)
        self._node.destroy_service(self._service)

    def submit(self, stamp: int, read: Callable[[], Floats], deadline: float = math.inf) -> None:
        """Add points; the log says what became of them.

        Args:
            stamp: of their image in nanoseconds; 0 for the newest image.
            read: returns their pixels (x, y) [N, 2] once the image is there; may raise
                `InputError`.
            deadline: monotonic time in seconds until which they may wait.

        """
        self._submit(PointRequest(stamp, read, self._log, deadline))

    def place_waiting(self, newest: int) -> None:
        """Place the points that waited for an image, given its stamp in nanoseconds."""
        self._placement.place_waiting(newest, self._settings())

    def forget_images(self) -> None:
        """Let requests wait for the next image."""
        self._placement.forget_images()

    def refuse_waiting(self) -> None:
        """Refuse the requests that wait, because of a call of `~/reset`."""
        self._placement.refuse_waiting("Points were refused: tracking was reset.")

    def _on_cloud(self, cloud: PointCloud2) -> None:
        self.submit(to_nanoseconds(cloud.header.stamp), lambda: read_pixels(cloud))

    def _add_requested(self, request: RequestedPixels) -> Awaitable[Answer]:
        future = Future(executor=self._node.executor)
        count = len(request.pixels)

        def respond(result: RequestResult) -> None:
            self._log(result)
            future.set_result(_build_answer(result, count))

        deadline = time.monotonic() + _ANSWER_WITHIN
        self._submit(PointRequest(request.stamp, lambda: request.pixels, respond, deadline))
        answer: Awaitable[Answer] = future
        return answer

    def _submit(self, request: PointRequest) -> None:
        if self._placement.submit(request, self._settings()):
            self._logger.info("Requested points wait for their image.")

    def _log(self, result: RequestResult) -> None:
        if result.fault:
            self._logger.warning(result.fault)
            return
        if result.added:
            self._logger.info(f"{_count_points(result.added, 'requested point')} added.")
        for reason in sorted({*result.reasons} - {""}):
            count = result.reasons.count(reason)
            points = _count_points(count, "requested point")
            self._logger.warning(f"Not added: {points}. {reason}")


def _build_answer(result: RequestResult, count: int) -> Answer:
    """Return the answer to a request of a number of points."""
    if result.fault:
        return Answer(False, result.fault, [-1] * count, [result.fault] * count)
    refused = count - result.added
    message = f"{_count_points(result.added, 'point')} added" + (
        f", {refused} refused." if refused else "."
    )
    return Answer(not refused, message, result.ids, result.reasons)


def _count_points(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
