"""What a build is asked for, and what each library cannot do of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vditrack.errors import InputError
from vditrack.inference.engine_identity import Flag, Target
from vditrack.inference.machine import Machine

Compatibility = Literal["ampere_plus", "same_compute_capability"]
RTX_ARCHITECTURES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""What TensorRT-RTX builds for: RTX desktops and GB10. No Jetson Orin (sm87), no Hopper (sm90)."""


@dataclass(frozen=True)
class Options:
    """A build as asked for; the library's own choice where None."""

    target: Target
    architectures: tuple[str, ...] = ()
    """For TensorRT-RTX; those of this machine where empty."""
    workspace: int | None = None
    """Bytes; clamped to the memory that is free where None."""
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: Compatibility | None = None
    strip_weights: bool = False

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the identity says of them."""
        flags: list[Flag] = []
        if self.version_compatible:
            flags.append("version_compatible")
        if self.strip_weights:
            flags.append("strip_weights")
        if self.hardware_compatible:
            flags.append(self.hardware_compatible)
        return tuple(flags)


def architectures_for(options: Options, machine: Machine) -> tuple[str, ...]:
    """Compute capabilities to build for, after all that the target cannot do is refused.

    Raises:
        InputError: an option that the target lacks, or no GPU to build for.

    """
    if options.target == "tensorrt":
        return _of_tensorrt(options, machine)
    return _of_tensorrt_rtx(options, machine)


def _of_tensorrt(options: Options, machine: Machine) -> tuple[str, ...]:
    here = machine.architecture
    if here is None:
        raise InputError(
            "TensorRT times its kernels on the GPU that it builds for, and there is none here: "
            "build on the machine that will track. `--target tensorrt-rtx` builds without a GPU."
        )
    if options.architectures not in ((), (here,)):
        raise InputError(
            f"--arch {','.join(options.architectures)}: TensorRT builds for the GPU it runs on, "
            f"here {here}. Build on the machine that will track, or give --hardware-compatible."
        )
    if options.hardware_compatible and machine.jetpack:
        raise InputError(
            "--hardware-compatible: TensorRT does not support it on JetPack. Build on each board."
        )
    return (here,)


def _of_tensorrt_rtx(options: Options, machine: Machine) -> tuple[str, ...]:
    lacking = {
        "--timing-cache": (options.timing_cache, "it times nothing while it builds"),
        "--optimization-level": (options.optimization_level, "it builds the same at every level"),
        "--version-compatible": (
            options.version_compatible,
            "its engines load in the release that built them alone",
        ),
        "--hardware-compatible": (
            options.hardware_compatible,
            "name the GPUs with --arch, as in --arch sm86,sm89",
        ),
        "--strip-weights": (
            options.strip_weights,
            "version 1.7 does not build such an engine without a GPU, or for several of them",
        ),
    }
    for option, (given, reason) in lacking.items():
        if given is not None and given is not False:
            raise InputError(f"TensorRT-RTX has no {option}: {reason}.")
    wanted = options.architectures or tuple(filter(None, [machine.architecture]))
    if not wanted:
        raise InputError(
            "there is no GPU here to build for. Name the GPUs that will track with --arch, as in "
            f"--arch sm86,sm89; TensorRT-RTX builds for {', '.join(RTX_ARCHITECTURES)}."
        )
    for architecture in wanted:
        if architecture not in RTX_ARCHITECTURES:
            raise InputError(
                f"TensorRT-RTX does not build for {architecture}, only for "
                f"{', '.join(RTX_ARCHITECTURES)}. Jetsons and data centre GPUs want "
                "--target tensorrt, on the machine itself."
            )
    return tuple(sorted(set(wanted), key=RTX_ARCHITECTURES.index))
