"""Devices that a plan can be made for: ``devices.toml`` has each figure with its source."""

from importlib import resources
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.bundle.configuration import PositiveReal
from vditrack.errors import InputError
from vditrack_export.plan.costs import Fusion

Precision = Literal["fp16", "bf16", "fp32"]
BYTES: dict[Precision, int] = {"fp16": 2, "bf16": 2, "fp32": 4}


def find_precision(name: str) -> Precision:
    """Return a precision by its name.

    Raises:
        InputError: No precision has that name.

    """
    for precision in BYTES:
        if precision == name:
            return precision
    raise InputError(f"no precision is named {name!r}; there are: {', '.join(BYTES)}.")


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dense peak rates, in 10^12 operations a second; None for what a device does not compute."""

    fp16: PositiveReal | None = None
    bf16: PositiveReal | None = None
    fp32: PositiveReal
    fp8: PositiveReal | None = None
    int8: PositiveReal | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device and the engine that runs on it."""

    title: str
    default: Precision
    """Precision of the networks if no other is asked for."""
    tflops: Rates
    bandwidth: PositiveReal
    """Of memory, in 10^9 bytes a second."""
    memory: PositiveReal
    """In 10^9 bytes."""
    compute_capability: str | None = None
    fusion: Fusion
    """What the engine computes in one kernel."""
    held: Annotated[float, Meta(ge=1)]
    """Memory that the engine holds for activations, over their peak."""
    source: str
    """Where the figures come from."""

    def peak(self, precision: Precision) -> float | None:
        """Return the peak rate in 10^12 operations a second; None if there is none."""
        rate: float | None = getattr(self.tflops, precision)
        return rate


def all_devices() -> dict[str, Device]:
    """Return every known device, by name."""
    content = (resources.files("vditrack_export.plan") / "devices.toml").read_bytes()
    return msgspec.toml.decode(content, type=dict[str, Device])


def find_device(name: str) -> Device:
    """Return a known device.

    Raises:
        InputError: No device has that name.

    """
    devices = all_devices()
    if name not in devices:
        raise InputError(f"no device is named {name!r}; there are: {', '.join(devices)}.")
    return devices[name]
