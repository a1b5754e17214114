"""The time that a device needs: for its operations or for its memory, whichever is longer."""

from dataclasses import dataclass

from vditrack.errors import InputError
from vditrack_export.plan.devices import BYTES, Device, Precision


@dataclass(frozen=True)
class Roofline:
    """The rates that a device reaches at one precision."""

    operations_rate: float
    """Operations a second."""
    bytes_rate: float
    """Bytes a second."""
    element: int
    """Bytes of one number."""

    def seconds(self, operations: int, moved_bytes: int) -> float:
        """Return the time of one run (Williams, Waterman, Patterson: Roofline, 2009)."""
        return max(operations / self.operations_rate, moved_bytes / self.bytes_rate)


def check_efficiency(efficiency: float) -> None:
    """Check that an efficiency is a share.

    Raises:
        InputError: It is not.

    """
    # Written so that NaN fails too.
    if not 0 < efficiency <= 1:
        raise InputError(
            f"efficiency {efficiency:g} is not a share of the peak: give more than 0, at most 1."
        )


def roofline(device: Device, precision: Precision, efficiency: float) -> Roofline:
    """Return the roofline of a device.

    Args:
        device: The device.
        precision: Of the networks.
        efficiency: Share of the peak rates that is reached, from 0 to 1.

    Raises:
        InputError: The device does not compute in that precision, or the efficiency is not a share.

    """
    peak = device.peak(precision)
    if peak is None:
        raise InputError(f"{device.title} does not compute in {precision}; use {device.default}.")
    check_efficiency(efficiency)
    return Roofline(
        operations_rate=peak * 1e12 * efficiency,
        bytes_rate=device.bandwidth * 1e9 * efficiency,
        element=BYTES[precision],
    )
