"""TensorRT and TensorRT-RTX, which have one Python API under two names."""

from importlib import import_module
from threading import Event
from types import ModuleType
from typing import Any

from rich.progress import Progress, TaskID

from vditrack.errors import EngineError
from vditrack.inference.engine_identity import TITLES, Target

Foreign = Any
"""An object of the library, which ships no types."""
_INSTALL: dict[Target, str] = {
    "tensorrt": (
        "On a Jetson it comes with JetPack (`sudo apt install python3-libnvinfer`); a virtual "
        "environment sees it if made with --system-site-packages. Elsewhere: `pip install tensorrt`"
    ),
    "tensorrt-rtx": "Run `pip install vditrack[tensorrt-rtx]`",
}


def import_library(target: Target) -> ModuleType:
    """Import the library of a target.

    Raises:
        EngineError: it is not installed, or does not load.

    """
    try:
        return import_module(target.replace("-", "_"))
    # A missing module, or one whose shared libraries are missing or broken.
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{TITLES[target]} does not load in this Python ({error}). {_INSTALL[target]}."
        ) from error


def progress_monitor(trt: ModuleType, bars: Progress, cancelled: Event) -> Foreign:
    """Make a monitor that shows each phase as a bar, and stops the build once ``cancelled``.

    TensorRT calls it from several threads; rich's bars may be moved from any of them.
    """

    class BarMonitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._tasks: dict[str, TaskID] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            # Threads may be in phases of the same name.
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
