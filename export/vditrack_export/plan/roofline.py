"""How long a device takes at least: by its operations or by its memory, whichever takes longer."""

from dataclasses import dataclass

from vditrack.errors import InputError
from vditrack_export.plan.devices import BYTES, Device, Precision


@dataclass(frozen=True)
class Roofline:
    """A device at one precision, with the share of its peak rates that is reached."""

    operations_rate: float
    """A second."""
    bytes_rate: float
    """A second."""
    element: int
    """Bytes."""

    def seconds(self, operations: int, moved_bytes: int) -> float:
        """Time of one run (Williams, Waterman, Patterson: Roofline, 2009)."""
        return max(operations / self.operations_rate, moved_bytes / self.bytes_rate)


def roofline(device: Device, precision: Precision, efficiency: float) -> Roofline:
    """Return the roofline of a device.

    Raises:
        InputError: the device does not compute in that precision, or the efficiency is no share.

    """
    peak = device.peak(precision)
    if peak is None:
        raise InputError(f"{device.title} does not compute in {precision}; use {device.default}.")
    if not 0 < efficiency <= 1:
        raise InputError(f"efficiency {efficiency:g} is no share of the peak: give 0 to 1.")
    return Roofline(
        operations_rate=peak * 1e12 * efficiency,
        bytes_rate=device.bandwidth * 1e9 * efficiency,
        element=BYTES[precision],
    )
