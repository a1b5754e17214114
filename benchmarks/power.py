"""The power that the first GPU draws while something runs, where the driver reports it."""

import shutil
import subprocess
import threading
from collections.abc import Callable
from importlib import import_module
from types import TracebackType

_PERIOD = 0.1
"""Seconds between two readings."""
_QUERY = (
    "nvidia-smi",
    "--id=0",
    "--query-gpu=power.draw",
    "--format=csv,noheader,nounits",
)


class PowerMeter:
    """A context that reads the power of the first GPU in a thread; on a Jetson none is reported."""

    def __init__(self) -> None:
        self._read = _find_reader()
        self._readings: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def watts(self) -> float | None:
        """The mean of the readings; None without any."""
        return sum(self._readings) / len(self._readings) if self._readings else None

    def __enter__(self) -> "PowerMeter":
        """Start to read."""
        if self._read is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop to read."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _sample(self) -> None:
        assert self._read is not None
        while not self._done.wait(_PERIOD):
            watts = self._read()
            if watts is not None:
                self._readings.append(watts)


def _find_reader() -> Callable[[], float | None] | None:
    """Return a function that reads the power in watts: by NVML, or by nvidia-smi."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return _read_by_program if shutil.which(_QUERY[0]) else None
    try:
        nvml.nvmlInit()
        device = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetPowerUsage(device)
    except nvml.NVMLError:
        return None
    return lambda: float(nvml.nvmlDeviceGetPowerUsage(device)) / 1000


def _read_by_program() -> float | None:
    done = subprocess.run(_QUERY, capture_output=True, text=True, check=False)
    try:
        return float(done.stdout)
    except ValueError:
        return None
