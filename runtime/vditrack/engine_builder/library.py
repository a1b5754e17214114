"""Loads TensorRT and TensorRT-RTX, which have the same Python API under two module names."""

from threading import Event
from types import ModuleType
from typing import Any

from rich.progress import Progress, TaskID

from vditrack.errors import EngineError, install_command
from vditrack.inference.engine_identity import TITLES, Target
from vditrack.inference.isolated_import import import_isolated

LibraryObject = Any
"""An object of the library. The library ships no type annotations."""
_INSTALL_TENSORRT = (
    "On a Jetson it comes with JetPack (`sudo apt install python3-libnvinfer`); a virtual "
    "environment sees it if it was made with --system-site-packages. Elsewhere, run "
    "`pip install tensorrt`"
)


def import_library(target: Target) -> ModuleType:
    """Import and return the library of a target.

    Raises:
        EngineError: The library is not installed or does not load.

    """
    try:
        return import_isolated(target.replace("-", "_"))
    # The module is missing, its shared libraries are missing or broken, or it crashes.
    except ImportError as error:
        rtx = f"Run `{install_command('tensorrt-rtx')}`"
        remedy = _INSTALL_TENSORRT if target == "tensorrt" else rtx
        raise EngineError(
            f"{TITLES[target]} does not load in this Python ({error}). {remedy}."
        ) from error


def make_progress_monitor(trt: ModuleType, bars: Progress, cancelled: Event) -> LibraryObject:
    """Make a monitor that shows a bar for each phase, and stops the build on ``cancelled``.

    TensorRT calls the monitor from several threads; rich's progress bars are thread-safe.
    """

    class BarMonitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._tasks: dict[str, TaskID] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            # Two threads can be in phases of the same name; one bar shows both.
            self.phase_finish(phase)
            self._tasks[phase] = bars.add_task(phase.lower(), total=steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if (task := self._tasks.get(phase)) is not None:
                bars.update(task, completed=step + 1)
            return not cancelled.is_set()

        def phase_finish(self, phase: str) -> None:
            if (task := self._tasks.pop(phase, None)) is not None:
                bars.remove_task(task)

    return BarMonitor()
