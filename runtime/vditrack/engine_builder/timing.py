"""Reads and writes TensorRT's timing cache, which keeps kernel timings between builds."""

from pathlib import Path

from vditrack.atomic_files import staged_file
from vditrack.engine_builder.library import LibraryObject
from vditrack.errors import InputError
from vditrack.input_checks.files import RefusedFileError, read_file

_MAX_SIZE = 1 << 30
"""Largest accepted size of a timing cache, in bytes."""


def read_timing_cache(path: Path | None) -> bytes | None:
    """Return the content of the file, empty if it does not exist yet; None if ``path`` is None.

    Raises:
        InputError: It is not a regular file, or it is too large.

    """
    if path is None:
        return None
    try:
        return read_file(path, _MAX_SIZE)
    except FileNotFoundError:
        return b""
    except RefusedFileError as error:
        raise InputError(f"timing cache {path}: {error.strerror}. Name another file.") from error


def write_timing_cache(path: Path, content: bytes) -> None:
    """Write the file atomically, replacing an earlier one."""
    with staged_file(path) as staged:
        staged.write_bytes(content)


def attach_timing_cache(
    config: LibraryObject, content: bytes, path: Path | None, logger: LibraryObject
) -> None:
    """Make a build use the kernel timings of earlier builds.

    Args:
        config: Builder configuration of the library.
        content: Content of the timing cache; empty for a new one.
        path: File of the timing cache, for the error message.
        logger: Logger that collects the library's errors.

    Raises:
        InputError: The cache is of another version or GPU, or damaged.

    """
    before = len(logger.errors)
    cache = config.create_timing_cache(content)
    # On unreadable content the library logs an error and continues with an empty cache.
    unread = cache is None or len(logger.errors) > before
    if unread or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"{path} is a timing cache of another TensorRT version or GPU, or damaged. Delete it, "
            "or name a new file."
        )


def serialize_timing_cache(config: LibraryObject) -> bytes:
    """Return the timing cache after a build: earlier timings and new ones."""
    return bytes(config.get_timing_cache().serialize())
