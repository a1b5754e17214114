"""The devices a plan can be made for: data in ``devices.toml``, each figure with its source."""

from importlib import resources
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.bundle.configuration import PositiveReal
from vditrack.errors import InputError
from vditrack_export.plan.trace import Fusion

Precision = Literal["fp16", "bf16", "fp32"]
BYTES: dict[Precision, int] = {"fp16": 2, "bf16": 2, "fp32": 4}


def find_precision(name: str) -> Precision:
    """Return a precision by its name.

    Raises:
        InputError: there is none of that name.

    """
    for precision in BYTES:
        if precision == name:
            return precision
    raise InputError(f"no precision is named {name!r}; there are: {', '.join(BYTES)}.")


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Peak rates, 10^12 operations a second, dense; None where a device has no such unit."""

    fp16: PositiveReal | None = None
    bf16: PositiveReal | None = None
    fp32: PositiveReal
    fp8: PositiveReal | None = None
    int8: PositiveReal | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device and the engine that runs on it."""

    title: str
    default: Precision
    """What the networks run in unless something else is asked for."""
    tflops: Rates
    bandwidth: PositiveReal
    """10^9 bytes a second."""
    memory: PositiveReal
    """10^9 bytes."""
    compute_capability: str | None = None
    fusion: Fusion
    """What the engine computes in one kernel."""
    held: Annotated[float, Meta(ge=1)]
    """Memory that the engine holds for activations, over what they need."""
    source: str

    def peak(self, precision: Precision) -> float | None:
        """10^12 operations a second."""
        rate: float | None = getattr(self.tflops, precision)
        return rate


def all_devices() -> dict[str, Device]:
    """Every known device, by name."""
    content = (resources.files("vditrack_export.plan") / "devices.toml").read_bytes()
    return msgspec.toml.decode(content, type=dict[str, Device])


def find_device(name: str) -> Device:
    """Return a known device.

    Raises:
        InputError: there is none of that name.

    """
    devices = all_devices()
    if name not in devices:
        raise InputError(f"no device is named {name!r}; there are: {', '.join(devices)}.")
    return devices[name]
