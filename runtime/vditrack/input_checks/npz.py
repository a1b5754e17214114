"""Reading of NumPy archives from outside, without pickle and within a limit of memory."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vditrack.input_checks.files import MalformedError

_MAX_HEADER = 10_000
"""Largest accepted header of an array, in bytes; NumPy's own default."""


def read_arrays(content: bytes, names: Collection[str], max_size: int) -> dict[str, NDArray[Any]]:
    """Return arrays of an ``.npz`` file.

    Args:
        content: The file.
        names: Names of the arrays.
        max_size: Largest accepted size of an array after decompression, in bytes.

    Raises:
        MalformedError: It is not such a file, lacks an array, or one is pickled or too large.

    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return {name: _read_array(archive, name, max_size) for name in names}
    except KeyError as error:
        raise MalformedError(f"an array is missing ({' '.join(map(str, error.args))})") from error
    # What zipfile and NumPy raise for damaged archives and headers.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        MemoryError,
        NotImplementedError,
        OSError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        tokenize.TokenError,
    ) as error:
        raise MalformedError(f"it is not a NumPy archive ({error})") from error


def _read_array(archive: zipfile.ZipFile, name: str, max_size: int) -> NDArray[Any]:
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > max_size:
        raise MalformedError(
            f"{name} has {member.file_size:,} bytes, more than the limit of {max_size:,}"
        )
    # Reading ends at the size that the archive gives, however much more is compressed there.
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
        # Before NumPy allocates the array.
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise MalformedError(f"{name} claims the shape {list(shape)}, more than it holds")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(
            file, allow_pickle=False, max_header_size=_MAX_HEADER
        )
        return array


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file, max_header_size=_MAX_HEADER)
    return shape, dtype
