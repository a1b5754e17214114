"""RVL, a lossless code for depth images (Wilson, Fast lossless depth image compression, 2017).

An image is a series of runs: the number of zeros, the number of other values, and of each of these
the difference from the one before it, with the sign in the lowest bit. Each of these numbers is
stored in groups of 3 bits, the lowest first; a fourth bit says that another group follows.
image_transport stores the number of columns and of rows before it.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import DamagedImageError

_SIZE = struct.Struct("<II")
"""Columns and rows."""
_MAX_PIXELS = 1 << 26
"""A limit on what a damaged size may allocate."""
_GROUPS = 11
"""Groups of 3 bits in a number of 32 bits."""


def decode_rvl(data: NDArray[np.uint8], description: str) -> NDArray[np.uint16]:
    """Return the depth image [H, W] of RVL data with the size before them.

    Args:
        data: uint8 [n].
        description: of the message, for errors.

    Raises:
        DamagedImageError: the data do not give as many pixels as the size has.

    """
    damaged = DamagedImageError(f"{description} is truncated or damaged.")
    if len(data) < _SIZE.size:
        raise damaged
    columns, rows = _SIZE.unpack(data[: _SIZE.size].tobytes())
    count = columns * rows
    if not 0 < count <= _MAX_PIXELS:
        raise damaged
    numbers = _read_numbers(data[_SIZE.size :])
    starts, used = _find_runs(numbers, count)
    if used > len(numbers):
        raise damaged
    is_length = np.zeros(used, np.bool_)
    is_length[starts] = is_length[starts + 1] = True
    differences = numbers[:used][~is_length]
    # The values of all runs are one series of differences.
    values = np.cumsum((differences >> 1) ^ -(differences & 1)).astype(np.uint16)
    pixels = np.zeros(count, np.uint16)
    lengths = np.stack([numbers[starts], numbers[starts + 1]], axis=1).reshape(-1)
    pixels[np.repeat(np.tile([False, True], len(starts)), lengths)] = values
    return pixels.reshape(rows, columns)


def _find_runs(numbers: NDArray[np.int64], count: int) -> tuple[NDArray[np.intp], int]:
    """Return where the runs of an image start, and how many numbers it has.

    That is more than there are if the runs do not give as many pixels as the image has.

    Args:
        numbers: all numbers of the image.
        count: of the pixels.

    """
    found = numbers.tolist()
    starts: list[int] = []
    filled, at, last = 0, 0, len(found) - 2
    while filled < count and at <= last:
        starts.append(at)
        zeros, others = found[at], found[at + 1]
        filled += zeros + others
        at += 2 + others
    return np.array(starts, np.intp), at if filled == count else len(found) + 1


def _read_numbers(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return all numbers [n] in words of 32 bits, whose first group is in the highest bits."""
    words = data[: len(data) // 4 * 4].view("<u4")
    groups = np.empty(8 * len(words), np.uint8)
    for n in range(8):
        groups[n::8] = (words >> np.uint32(28 - 4 * n)) & 15
    ends = np.flatnonzero(groups < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.append(0, ends[:-1] + 1)
    longest = int((ends - starts).max()) + 1
    if longest > _GROUPS:
        # Only a damaged file has longer numbers: none is believed.
        return np.zeros(0, np.int64)
    groups &= 7
    numbers: NDArray[np.int64] = groups[starts].astype(np.int64)
    chosen = np.arange(len(starts))
    for n in range(1, longest):
        chosen = chosen[ends[chosen] - starts[chosen] >= n]
        numbers[chosen] |= groups[starts[chosen] + n].astype(np.int64) << (3 * n)
    return numbers
