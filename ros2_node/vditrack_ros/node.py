"""The lifecycle node: what each transition makes, the opposite one frees."""

import gc
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn

from vditrack import Tracker
from vditrack.errors import InputError, VditrackError
from vditrack_ros.camera.camera import Model, TrackedCamera
from vditrack_ros.declared_parameters import DeclaredParameters, answer
from vditrack_ros.diagnostics import diagnostic_status, model_report
from vditrack_ros.parameters import Settings
from vditrack_ros.self_test import prove

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

_PERIOD = 1.0
"""Seconds between two messages on /diagnostics."""


class TrackerNode(LifecycleNode):  # type: ignore[misc]
    """The node `tracker`.

    Configuring checks the parameters, loads the model and proves it; activating subscribes and
    publishes. A transition that fails says why in the log and leaves the node as it was.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        """Declare the parameters; with autostart the rest follows as soon as the node spins.

        Args:
            options: of `rclpy.lifecycle.LifecycleNode`.

        """
        super().__init__("tracker", automatically_declare_parameters_from_overrides=True, **options)
        self._declared = DeclaredParameters(self)
        self._settings: Settings | None = None
        self._model: Model | None = None
        self._cameras: list[TrackedCamera] = []
        self._finalized = False
        self._diagnostics: Any = None
        # Of the machine: a simulation's may stand still.
        self._clock_of_timers = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer: Any = None
        self.add_on_set_parameters_callback(self._on_set_parameters)
        if self.get_parameter("autostart").value:
            self._starter = self.create_timer(0.0, self._autostart, clock=self._clock_of_timers)

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Check the parameters, load the model and prove it."""
        return self._attempt("configure", self._configure, self._free_model)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Subscribe to all cameras and publish what follows their images."""
        return self._attempt("activate", self._activate, self._free_cameras)

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Free what activating made."""
        self._free_cameras()
        return SUCCESS

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free what configuring made."""
        self._free_model()
        return SUCCESS

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Free all."""
        self._free_cameras()
        self._free_model()
        self._finalized = True
        return SUCCESS

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Free all, to be configured again."""
        self._free_cameras()
        self._free_model()
        return SUCCESS

    def close(self) -> None:
        """Shut down from whatever state the node is in, before it is destroyed."""
        if not self._finalized:
            self.trigger_shutdown()

    def _attempt(
        self, verb: str, work: Callable[[], None], undo: Callable[[], None]
    ) -> TransitionCallbackReturn:
        """Do the work of a transition; what fails is told and undone, and does not end the node."""
        try:
            work()
        except VditrackError as error:
            self.get_logger().error(f"Cannot {verb}: {error}")
        except Exception:
            self.get_logger().error(f"Cannot {verb}: {traceback.format_exc()}")
        else:
            return SUCCESS
        undo()
        return FAILURE

    def _configure(self) -> None:
        settings = self._declared.settings()
        tracker = Tracker.load(settings.bundle or None, settings.backend)
        prove(tracker, settings.mode)
        # Their threads start with their first work.
        points, masks = ThreadPoolExecutor(1, "points"), ThreadPoolExecutor(1, "masks")
        self._model = Model(tracker, points, masks)
        self._settings = settings
        backend, source = tracker.backend, tracker.bundle.manifest.source
        self.get_logger().info(f"Model {source.card} runs on {backend.name}.")
        for fallback in backend.fallbacks:
            self.get_logger().info(f"Not on {fallback.name}: {fallback.reason}")

    def _activate(self) -> None:
        assert self._model is not None and self._settings is not None
        for name in self._settings.cameras:
            self._cameras.append(TrackedCamera(self, name, self._model, self._settings))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = self.create_timer(_PERIOD, self._diagnose, clock=self._clock_of_timers)
        topics = ", ".join(camera.topic for camera in self._cameras)
        self.get_logger().info(f"Listening on {topics}.")

    def _free_cameras(self) -> None:
        for camera in self._cameras:
            camera.close()
        self._cameras = []
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self.destroy_publisher(self._diagnostics)
        self._timer = self._diagnostics = None

    def _free_model(self) -> None:
        if self._model is not None:
            for worker in (self._model.points, self._model.masks):
                worker.shutdown(cancel_futures=True)
        self._model = self._settings = None
        # Sessions hang in cycles; they hold the model's weights.
        gc.collect()

    def _autostart(self) -> None:
        self.destroy_timer(self._starter)
        if self._model is None and self.trigger_configure() != SUCCESS:
            name = self.get_fully_qualified_name()
            self.get_logger().error(
                f"Not started. Mend what is said above, for parameters with `ros2 param set {name} "
                f"...`; then `ros2 lifecycle set {name} configure` and `... activate`."
            )
            return
        if not self._cameras:
            self.trigger_activate()

    def _on_set_parameters(self, changed: list[Any]) -> SetParametersResult:
        try:
            settings = self._declared.change(changed, self._settings)
        except InputError as error:
            return answer(error)
        self._settings = settings
        if settings is not None:
            for camera in self._cameras:
                camera.use(settings)
        return answer(None)

    def _diagnose(self) -> None:
        assert self._model is not None
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name()
        report = model_report(self._model.tracker)
        message.status = [
            diagnostic_status(f"{name}: model", self._model.tracker.backend.name, report),
            *(
                diagnostic_status(f"{name}: {told}", camera.topic, report)
                for camera in self._cameras
                for told, report in camera.reports().items()
            ),
        ]
        self._diagnostics.publish(message)
