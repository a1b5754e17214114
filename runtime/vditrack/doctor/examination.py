"""Runs all checks, in the order in which they are printed."""

from collections.abc import Callable, Iterator

from vditrack.doctor import bundled, nvidia, onnx_runtime, robot, software
from vditrack.doctor.finding import Finding

CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    software.check_python,
    software.check_package,
    software.check_requirements,
    software.check_signatures,
    onnx_runtime.check_wheels,
    onnx_runtime.check_providers,
    nvidia.check_gpu,
    nvidia.check_cuda_runtime,
    nvidia.check_cudnn,
    nvidia.check_tensorrt,
    nvidia.check_tensorrt_rtx,
    robot.check_jetson,
    robot.check_power_mode,
    robot.check_ros,
    robot.check_memory,
    robot.check_disk,
    bundled.check_files,
    bundled.check_track,
)


def run_checks() -> Iterator[Finding]:
    """Yield the findings of every check. A check that raises becomes a finding itself."""
    for check in CHECKS:
        try:
            yield from check()
        # On a broken machine a check may fail in ways that nobody foresaw.
        except Exception as error:
            found = f"the check itself fails: {type(error).__name__}: {error}"
            yield Finding(check.__name__, "broken", found, "report it, with --report FILE.zip")
