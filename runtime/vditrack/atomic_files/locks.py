"""Locks of folders, which end with the process that holds them."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def make_locked_folder(folder: Path) -> int:
    """Make a folder and lock it, so that others see that its process lives.

    Returns:
        The descriptor that holds the lock; closing it ends the lock.

    Raises:
        OSError: The folder cannot be made.

    """
    while True:
        folder.mkdir(mode=0o755)
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return descriptor
            # Another process removed it before it was locked.
            os.close(descriptor)


def remove_if_unlocked(folder: Path) -> None:
    """Remove a folder of `make_locked_folder`, unless its process lives."""
    # Also a link, and a file system that has no locks of folders.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(descriptor)
