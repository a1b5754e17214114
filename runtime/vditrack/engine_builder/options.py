"""The options of a build, and the checks that the target library supports them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vditrack.errors import InputError
from vditrack.inference.engine_identity import Flag, Target
from vditrack.inference.machine import Machine

Compatibility = Literal["ampere_plus", "same_compute_capability"]
RTX_ARCHITECTURES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""Compute capabilities that TensorRT-RTX builds for: RTX desktops and GB10.

Jetson Orin (sm87) and Hopper (sm90) are not among them.
"""


@dataclass(frozen=True)
class BuildOptions:
    """The options of a build. None stands for the library's default."""

    target: Target
    architectures: tuple[str, ...] = ()
    """Compute capabilities to build for, TensorRT-RTX only; empty for this machine's GPU."""
    workspace: int | None = None
    """Limit of scratch memory in bytes, at most the free memory; None for all free memory."""
    optimization_level: int | None = None
    """Effort of the search for fast kernels, 0 to 5."""
    timing_cache: Path | None = None
    """File that keeps kernel timings between builds; None to keep none."""
    version_compatible: bool = False
    """Whether later versions of TensorRT can run the engine."""
    hardware_compatible: Compatibility | None = None
    """Other GPUs that can run the engine; None for none."""
    strip_weights: bool = False
    """Whether the engine leaves out the weights, which are then read from the graph at load."""
    record_host: bool = False
    """Whether the identity of the build names this computer."""

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The flags that the identity of the build records."""
        flags: list[Flag] = []
        if self.version_compatible:
            flags.append("version_compatible")
        if self.strip_weights:
            flags.append("strip_weights")
        if self.hardware_compatible:
            flags.append(self.hardware_compatible)
        return tuple(flags)


def select_architectures(options: BuildOptions, machine: Machine) -> tuple[str, ...]:
    """Check the options, and return the compute capabilities to build for, as in ``sm89``.

    Raises:
        InputError: The target does not support an option, or there is no GPU to build for.

    """
    if options.target == "tensorrt":
        return _select_for_tensorrt(options, machine)
    return _select_for_tensorrt_rtx(options, machine)


def _select_for_tensorrt(options: BuildOptions, machine: Machine) -> tuple[str, ...]:
    here = machine.architecture
    if here is None:
        raise InputError(
            "TensorRT builds only for the GPU of this machine, and there is none here. Build on "
            "the machine that will track, or use `--target tensorrt-rtx`, which needs no GPU."
        )
    if options.architectures not in ((), (here,)):
        raise InputError(
            f"--arch {','.join(options.architectures)}: TensorRT builds for the GPU it runs on, "
            f"here {here}. Build on the machine that will track, or use --hardware-compatible."
        )
    if options.hardware_compatible and machine.jetpack:
        raise InputError(
            "--hardware-compatible: TensorRT does not support it on JetPack. Build on each board."
        )
    return (here,)


def _select_for_tensorrt_rtx(options: BuildOptions, machine: Machine) -> tuple[str, ...]:
    unsupported = {
        "--timing-cache": (options.timing_cache, "it times nothing while it builds"),
        "--optimization-level": (options.optimization_level, "it builds the same at every level"),
        "--version-compatible": (
            options.version_compatible,
            "its engines load only in the release that built them",
        ),
        "--hardware-compatible": (
            options.hardware_compatible,
            "name the GPUs with --arch, as in --arch sm86,sm89",
        ),
        "--strip-weights": (
            options.strip_weights,
            "version 1.7 cannot strip weights without a GPU, or for several architectures",
        ),
    }
    for option, (given, reason) in unsupported.items():
        if given is not None and given is not False:
            raise InputError(f"TensorRT-RTX has no {option}: {reason}.")
    wanted = options.architectures or tuple(filter(None, [machine.architecture]))
    if not wanted:
        raise InputError(
            "this machine has no GPU to build for. Name the GPUs that will track with --arch, as "
            f"in --arch sm86,sm89; TensorRT-RTX builds for {', '.join(RTX_ARCHITECTURES)}."
        )
    for architecture in wanted:
        if architecture not in RTX_ARCHITECTURES:
            raise InputError(
                f"TensorRT-RTX does not build for {architecture}, only for "
                f"{', '.join(RTX_ARCHITECTURES)}. For a Jetson or a data centre GPU, use "
                "--target tensorrt on that machine."
            )
    return tuple(sorted(set(wanted), key=RTX_ARCHITECTURES.index))
