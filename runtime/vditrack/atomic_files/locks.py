"""Locks of folders, which end with the process that holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vditrack.errors import InputError


@contextmanager
def locked_folder(folder: Path, shown: Path) -> Iterator[None]:
    """Lock a folder for results, so that one process writes in it at a time.

    The folder itself is locked, so no file is left. File systems that cannot lock a folder, such as
    NFS, do without.

    Args:
        folder: The folder, which exists.
        shown: The folder as the user named it, for the message.

    Raises:
        InputError: Another process has the lock.

    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another run writes in {shown}. Wait for it, or choose another folder with -o."
            ) from error
        except OSError:
            # The file system has no locks of folders.
            pass
        yield
    finally:
        os.close(descriptor)
