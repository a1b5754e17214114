"""The time that a device needs: for its operations or for its memory, whichever is longer."""

from dataclasses import dataclass

from vditrack.errors import InputError
from vditrack_export.plan.costs import PRECISIONS, Cost
from vditrack_export.plan.devices import Device


@dataclass(frozen=True)
class Roofline:
    """A device that reaches a share of its peak rates."""

    device: Device
    efficiency: float
    """Share of peak operations and of bandwidth, from 0 to 1."""

    def seconds(self, cost: Cost) -> float:
        """Return the time of one run (Williams, Waterman, Patterson: Roofline, 2009).

        Raises:
            InputError: The device does not compute in a precision of the run.

        """
        moved = cost.moved_bytes + cost.weight_bytes
        operations = 0.0
        for precision in PRECISIONS:
            if count := cost.operations_in(precision):
                operations += count / (self.device.require_peak(precision) * 1e12)
        return max(operations, moved / (self.device.bandwidth * 1e9)) / self.efficiency

    def copy_seconds(self, count: int) -> float:
        """Return the time to bring so many bytes from an array to the device, or back.

        The host copies between the array and pinned memory, which is read and written; then the
        bytes cross to the device (`vditrack.inference.tensorrt`).
        """
        device = self.device
        if device.engine == "onnxruntime":
            return 0.0
        host = 2 * count / (device.host_rate * 1e9)
        crossing = 2 * count / device.bandwidth if device.link is None else count / device.link
        return (host + crossing / 1e9) / self.efficiency

    def move_seconds(self, count: int) -> float:
        """Return the time to copy so many bytes within the device's memory."""
        return 2 * count / (self.device.bandwidth * 1e9) / self.efficiency


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
