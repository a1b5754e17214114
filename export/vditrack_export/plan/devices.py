"""Devices that a plan can be made for: ``devices.toml`` has each figure with its source."""

import math
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vditrack.bundle.value_types import PositiveReal
from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_TOML_SIZE, MalformedError, decode_toml, read_file
from vditrack_export.plan.costs import PRECISIONS, Fusion, PrecisionName

_EXAMPLE = (
    "A device is a table of its own, [my-board], with title, default, tflops, bandwidth, memory "
    "and source; docs/speed.md has an example."
)


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
    default: PrecisionName
    """Precision that is planned if no other is asked for, as ``export --precision`` takes it."""
    tflops: Rates
    bandwidth: PositiveReal
    """Of memory, in 10^9 bytes a second."""
    memory: PositiveReal
    """In 10^9 bytes."""
    link: PositiveReal | None = None
    """Between host and device, each way, in 10^9 bytes a second; None if they share one memory."""
    host_bandwidth: PositiveReal | None = None
    """Of the host's memory, in 10^9 bytes a second; None if it is the device's."""
    compute_capability: str | None = None
    engine: Literal["tensorrt", "onnxruntime"] = "tensorrt"
    """``tensorrt`` fuses elementwise operations and attention; ``onnxruntime`` is its CPU
    provider."""
    held: Annotated[float, Meta(ge=1)] = 1.0
    """Memory that the engine holds for activations, over their peak."""
    source: str
    """Where the figures come from."""

    def __post_init__(self) -> None:
        numbers = {**msgspec.structs.asdict(self.tflops), **msgspec.structs.asdict(self)}
        for name, value in numbers.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is not finite")
        if self.peak(self.default) is None:
            raise ValueError(f"default is {self.default}, and tflops has no such rate")
        if (self.link is None) != (self.host_bandwidth is None):
            raise ValueError(
                "link and host_bandwidth belong together: give both for a GPU with its own memory, "
                "neither where host and device share one"
            )

    @property
    def fusion(self) -> Fusion:
        """What the engine computes in one kernel."""
        return "all" if self.engine == "tensorrt" else "attention"

    @property
    def host_rate(self) -> float:
        """Bandwidth of the host's memory, in 10^9 bytes a second."""
        return self.host_bandwidth or self.bandwidth

    def peak(self, precision: PrecisionName) -> float | None:
        """Return the peak rate in 10^12 operations a second; None if there is none."""
        rate: float | None = getattr(self.tflops, precision)
        return rate

    def require_peak(self, precision: PrecisionName) -> float:
        """Return the peak rate in 10^12 operations a second.

        Raises:
            InputError: The device does not compute in the precision.

        """
        rate = self.peak(precision)
        if rate is None:
            known = ", ".join(name for name in PRECISIONS if self.peak(name))
            raise InputError(
                f"{self.title} does not compute in {precision}, only in {known}. Give --precision "
                "or --encoder-precision."
            )
        return rate


def all_devices(file: Path | None = None) -> dict[str, Device]:
    """Return every known device, by name.

    Args:
        file: TOML file with devices of the user, which replace others of their names; or None.

    Raises:
        InputError: The file cannot be read, or a device in it is not described as it has to be.

    """
    content = (resources.files("vditrack_export.plan") / "devices.toml").read_bytes()
    known = msgspec.toml.decode(content, type=dict[str, Device])
    return known if file is None else known | read_devices(file)


def read_devices(file: Path) -> dict[str, Device]:
    """Return the devices of a TOML file, by name; the schema is that of ``devices.toml``.

    Raises:
        InputError: The file cannot be read, or a device in it is not described as it has to be.

    """
    try:
        tables = decode_toml(read_file(file, MAX_TOML_SIZE), dict[str, object])
    except OSError as error:
        raise InputError(f"--device-file {file} cannot be read: {error.strerror}.") from error
    except MalformedError as error:
        raise InputError(f"--device-file {file}: {error}. {_EXAMPLE}") from error
    if not tables:
        raise InputError(f"--device-file {file} has no device. {_EXAMPLE}")
    return {name: _read_device(file, name, table) for name, table in tables.items()}


def _read_device(file: Path, name: str, table: object) -> Device:
    if not isinstance(table, dict):
        raise InputError(f"--device-file {file}: {name} stands outside of any device. {_EXAMPLE}")
    try:
        return msgspec.convert(table, Device)
    except msgspec.ValidationError as error:
        raise InputError(f"--device-file {file}, device {name}: {error}. {_EXAMPLE}") from error


def find_device(name: str, file: Path | None = None) -> Device:
    """Return a known device, or one of a file; arguments are those of `all_devices`.

    Raises:
        InputError: No device has that name, or the file is refused.

    """
    devices = all_devices(file)
    if name not in devices:
        raise InputError(f"no device is named {name!r}; there are: {', '.join(devices)}.")
    return devices[name]
