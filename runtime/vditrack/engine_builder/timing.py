"""TensorRT's timing cache: how long kernels took, kept from one build to the next."""

from pathlib import Path

from vditrack.atomic_files import staged_file
from vditrack.engine_builder.library import Foreign
from vditrack.errors import InputError


def read_timing_cache(path: Path | None) -> bytes | None:
    """Content of the file; empty where it will be made, None where none is asked for."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def write_timing_cache(path: Path, content: bytes) -> None:
    """Write or replace the file."""
    with staged_file(path) as staged:
        staged.write_bytes(content)


def attach_timing_cache(
    config: Foreign, content: bytes, path: Path | None, logger: Foreign
) -> None:
    """Let a build use what earlier ones measured.

    Raises:
        InputError: it is not of this version and GPU, or damaged.

    """
    before = len(logger.errors)
    cache = config.create_timing_cache(content)
    # The library logs that it cannot read one, and would go on with an empty one in its place.
    unread = cache is None or len(logger.errors) > before
    if unread or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"{path} is a timing cache of another TensorRT version or GPU, or damaged. Delete it, "
            "or give the name of a new file."
        )


def timing_cache_of(config: Foreign) -> bytes:
    """What the build has measured, and what it was given."""
    return bytes(config.get_timing_cache().serialize())
