"""All checks, in the order in which they are told."""

from collections.abc import Callable, Iterator

from vditrack.doctor import bundled, nvidia, onnx_runtime, robot, software
from vditrack.doctor.finding import Finding

CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    software.python,
    software.package,
    software.requirements,
    onnx_runtime.wheels,
    onnx_runtime.providers,
    nvidia.gpu,
    nvidia.cuda_runtime,
    nvidia.cudnn,
    nvidia.tensorrt,
    nvidia.tensorrt_rtx,
    robot.jetson,
    robot.power_mode,
    robot.ros,
    robot.memory,
    robot.disk,
    bundled.integrity,
    bundled.track,
)


def findings() -> Iterator[Finding]:
    """Run every check; none stops the ones after it."""
    for check in CHECKS:
        try:
            yield from check()
        # The doctor is for machines on which anything may be wrong, the unforeseen too.
        except Exception as error:
            found = f"the check itself fails: {type(error).__name__}: {error}"
            yield Finding(check.__name__, "broken", found, "report it, with --report FILE.zip")
