"""How much memory a build may take for its kernels' scratch space."""

from pathlib import Path

from vditrack.errors import InputError
from vditrack.inference.machine import free_device_memory

GIB = 1 << 30


def parse_workspace(text: str) -> int | None:
    """Bytes of ``auto`` (None) or of a number of GiB.

    Raises:
        InputError: neither.

    """
    if text == "auto":
        return None
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    # Written so that NaN fails too.
    if not 0 < size <= 1024:
        raise InputError(f"--workspace {text} is neither auto nor GiB, a number as in 2 or 0.5.")
    return int(size * GIB)


def workspace_bytes(asked: int | None) -> int | None:
    """Return the limit: as asked, and never more than is free; None where nobody knows.

    Free is the GPU's memory; without a GPU half of the host's, since the weights need the rest.
    """
    device = free_device_memory()
    free = _half_of_host_memory() if device is None else device
    known = [size for size in (asked, free) if size is not None]
    return min(known, default=None)


def _half_of_host_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":") for line in lines)
    return int(sizes["MemAvailable"].split()[0]) * 1024 // 2
