"""The lifecycle node. Each transition owns what it creates; the opposite transition frees it."""

import gc
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn

from vditrack import Tracker
from vditrack.errors import InputError, VditrackError
from vditrack.inference.selection import name_backend
from vditrack.input_checks.text import clean_line, clean_text
from vditrack_ros.bond import Bond, import_status
from vditrack_ros.camera.camera import CameraPipeline, SharedModel
from vditrack_ros.diagnostics import NodeState, build_diagnostic_status, build_node_report
from vditrack_ros.masks.propagation import MaskWorkers
from vditrack_ros.parameters.declaration import DeclaredParameters, build_set_result
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.process import choose_thread_count, return_free_memory
from vditrack_ros.self_test import run_self_test
from vditrack_ros.transforms import FrameTransforms, import_tf2
from vditrack_ros.transport.diagnostics_topic import DiagnosticsPublisher

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

_DIAGNOSTICS_PERIOD = 1.0
"""Seconds between two messages on /diagnostics."""


class TrackerNode(LifecycleNode):  # type: ignore[misc]
    """The node `tracker`.

    Configuring checks the parameters, loads the model, runs the self-test, and creates publishers
    and services. Activating subscribes to the images. A transition that fails logs the reason and
    leaves the node in its state. Diagnostics are published in all states.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        """Declare the parameters; with autostart, configure and activate once the node spins.

        Args:
            **options: of `rclpy.lifecycle.LifecycleNode`.

        """
        super().__init__("tracker", automatically_declare_parameters_from_overrides=True, **options)
        self._declared = DeclaredParameters(self)
        self._settings: Settings | None = None
        self._model: SharedModel | None = None
        self._cameras: list[CameraPipeline] = []
        self._next_ids: dict[str, int] = {}
        """The id of the next point of each camera; no id is used again in this process."""
        self._transforms = FrameTransforms(self)
        self._bond: Bond | None = None
        self._active = self._finalized = False
        self._failure = ""
        """Why the last transition failed; empty if it succeeded."""
        self._diagnostics = DiagnosticsPublisher(self)
        # Timers run on the machine's clock, because simulated time may stand still.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=clock)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        if self.get_parameter("autostart").value:
            self._start_timer = self.create_timer(0.0, self._autostart, clock=clock)

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Check the parameters, load the model, test it, and create publishers and services."""
        return self._attempt("configure", self._configure, self._clean_up)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Subscribe to the images of all cameras, and publish results."""
        return self._attempt("activate", self._activate, self._deactivate)

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Free what activating created; the points stay until the node is cleaned up."""
        self._deactivate()
        self._failure = ""
        return SUCCESS

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free what configuring created."""
        self._clean_up()
        self._failure = ""
        return SUCCESS

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Free everything."""
        self._clean_up()
        self._finalized, self._failure = True, ""
        return SUCCESS

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Free everything; the node can be configured again."""
        self._clean_up()
        return SUCCESS

    def close(self) -> None:
        """Shut down from any state, before the node is destroyed."""
        if not self._finalized:
            self.trigger_shutdown()

    def _attempt(
        self, verb: str, work: Callable[[], None], undo: Callable[[], None]
    ) -> TransitionCallbackReturn:
        """Do the work of a transition; log and undo a failure, so that the process survives."""
        try:
            work()
        except VditrackError as error:
            self._failure = clean_line(f"Cannot {verb}: {error}")
            self.get_logger().error(self._failure)
        except Exception as error:
            self._failure = clean_line(f"Cannot {verb}: {type(error).__name__}: {error}")
            self.get_logger().error(clean_text(f"Cannot {verb}: {traceback.format_exc()}"))
        else:
            self._failure = ""
            return SUCCESS
        undo()
        return FAILURE

    def _configure(self) -> None:
        settings = self._declared.read_settings()
        if settings.bond:
            import_status()
        if settings.target_frame:
            import_tf2(f"target_frame {settings.target_frame!r}")
        threads = settings.threads or choose_thread_count()
        tracker = Tracker.load(
            settings.bundle or None,
            name_backend(settings.backend, None if settings.device < 0 else settings.device),
            threads=threads,
            require_signature=settings.require_signature or None,
            allow_host_code=settings.allow_host_code,
        )
        run_self_test(tracker, settings.mode)
        # An executor starts its thread with its first job.
        points = ThreadPoolExecutor(1, "points")
        masks = MaskWorkers(*(ThreadPoolExecutor(1, name) for name in ("masks", "labels", "flow")))
        self._model = SharedModel(tracker, points, masks)
        self._settings = settings
        backend, source = tracker.backend, tracker.bundle.manifest.source
        self.get_logger().info(clean_line(f"Model {source.card} runs on {backend.name}."))
        for fallback in backend.fallbacks:
            reason = clean_line(fallback.reason)
            self.get_logger().info(f"Backend {fallback.name} is not used: {reason}")
        self._create_topics(self._model, settings)

    def _create_topics(self, model: SharedModel, settings: Settings) -> None:
        for name in settings.cameras:
            first_id = self._next_ids.get(name, 0)
            camera = CameraPipeline(self, name, model, self._transforms, settings, first_id)
            self._cameras.append(camera)
        self._diagnostics.apply_overrides()

    def _activate(self) -> None:
        assert self._model is not None and self._settings is not None
        for camera in self._cameras:
            camera.activate()
        if self._settings.bond:
            self._bond = Bond(self, import_status())
        self._active = True
        topics = ", ".join(camera.topic for camera in self._cameras)
        self.get_logger().info(f"Listening on {topics}.")

    def _deactivate(self) -> None:
        if self._bond is not None:
            self._bond.close()
        self._bond, self._active = None, False
        for camera in self._cameras:
            camera.deactivate()

    def _clean_up(self) -> None:
        self._deactivate()
        for camera in self._cameras:
            self._next_ids[camera.name] = camera.next_id
            camera.close()
        self._cameras = []
        self._transforms.close()
        if self._model is not None:
            masks = self._model.mask_workers
            for worker in (self._model.points_worker, masks.networks, masks.labels, masks.flow):
                worker.shutdown(cancel_futures=True)
        self._model = self._settings = None
        # Reference cycles keep the sessions, and with them the model's weights, alive.
        gc.collect()
        return_free_memory()

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self._model is None and self.trigger_configure() != SUCCESS:
            name = self.get_fully_qualified_name()
            self.get_logger().error(
                "Not started. Fix the error above, and start the node again; or, for a parameter, "
                f"run `ros2 param set {name} NAME VALUE`, `ros2 lifecycle set {name} configure` "
                f"and `ros2 lifecycle set {name} activate`."
            )
            return
        if not self._active:
            self.trigger_activate()

    def _on_set_parameters(self, changes: list[Any]) -> SetParametersResult:
        try:
            settings = self._declared.check_changes(changes, self._settings)
        except InputError as error:
            return build_set_result(error)
        self._settings = settings
        if settings is not None:
            for camera in self._cameras:
                camera.apply_settings(settings)
        return build_set_result(None)

    def _state(self) -> NodeState:
        if self._finalized:
            return NodeState.FINALIZED
        if self._model is None:
            return NodeState.UNCONFIGURED
        return NodeState.ACTIVE if self._active else NodeState.INACTIVE

    def _publish_diagnostics(self) -> None:
        # As diagnostic_updater names them, with the namespace: two nodes may have the same name.
        node_name = self.get_fully_qualified_name().lstrip("/")
        tracker = None if self._model is None else self._model.tracker
        node_report = build_node_report(tracker, self._state(), self._failure)
        hardware = "" if tracker is None else tracker.backend.name
        # The status of the model is there in all states. A monitor reports a status that ceases.
        statuses = [build_diagnostic_status(f"{node_name}: model", hardware, node_report)]
        if self._active:
            statuses += [
                build_diagnostic_status(f"{node_name}: {name}", camera.topic, report)
                for camera in self._cameras
                for name, report in camera.build_reports().items()
            ]
        self._diagnostics.publish(statuses)
