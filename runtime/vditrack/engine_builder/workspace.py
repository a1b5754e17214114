"""Limits the scratch memory of a build."""

from vditrack.errors import InputError
from vditrack.inference.host_memory import read_host_memory
from vditrack.inference.machine import free_device_memory

GIB = 1 << 30


def parse_workspace(text: str) -> int | None:
    """Parse ``auto`` or a number of GiB, and return None or the number of bytes.

    Raises:
        InputError: The text is neither.

    """
    if text == "auto":
        return None
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    # NaN fails this comparison too.
    if not 0 < size <= 1024:
        raise InputError(f"--workspace {text} is neither auto nor a number of GiB, as in 2 or 0.5.")
    return int(size * GIB)


def limit_workspace(requested: int | None) -> int | None:
    """Return the limit of scratch memory in bytes: ``requested``, at most the free memory.

    The free memory is the GPU's; without a GPU, half of the host's, as the weights need the rest.
    Returns None if nothing is requested and the free memory is unknown.
    """
    device = free_device_memory()
    free = _read_half_of_host_memory() if device is None else device
    known = [size for size in (requested, free) if size is not None]
    return min(known, default=None)


def _read_half_of_host_memory() -> int | None:
    memory = read_host_memory()
    return None if memory is None else memory.available // 2
