"""Scratch folders, and what becomes of a result that cannot be moved to its place.

Scratch folders lie inside the folder that the result is written to, so a result is moved to its
place by renaming, also where that folder is a mount point, the current folder or a link. Only a
bundle's folder that does not exist yet appears as a whole.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vditrack.atomic_files.locks import make_locked_folder, remove_if_unlocked
from vditrack.atomic_files.paths import (
    DestinationError,
    explain_refusal,
    find_existing,
    require_folder,
)
from vditrack.errors import InputError

_SCRATCH = ".vditrack-"
"""Beginning of the names of scratch folders."""
_IN_USE: set[Path] = set()
"""Scratch folders of this process."""
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def scratch_folder(folder: Path, shown: Path) -> Iterator[Path]:
    """Yield a new folder in a folder, removed afterwards if it is still there."""
    # Named before it exists: an interrupt between its creation and the block would leave it behind.
    scratch = folder / f"{_SCRATCH}{secrets.token_hex(4)}"
    _IN_USE.add(scratch)
    lock = None
    try:
        try:
            lock = make_locked_folder(scratch)
        except OSError as error:
            raise explain_refusal(shown, error) from error
        yield scratch
    finally:
        try:
            shutil.rmtree(scratch, ignore_errors=True)
        except BaseException:
            # A second interrupt.
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)
            _IN_USE.discard(scratch)


@contextmanager
def parent_folders(path: Path, shown: Path) -> Iterator[None]:
    """Make the folders above a path; remove those that are still empty if the block raises."""
    require_folder(find_existing(path.parent), shown)
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_refusal(shown, error) from error
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def keep_result(scratch: Path, shown: Path) -> Iterator[None]:
    """Keep the result under another name if it cannot be moved to its place."""
    try:
        yield
    except OSError as error:
        kept = scratch.with_name(f"vditrack-{secrets.token_hex(4)}")
        with suppress(OSError):
            kept = scratch.rename(kept)
            raise InputError(
                f"{shown} cannot be replaced ({error.strerror or error}). The result is in {kept}."
            ) from error
        raise


@contextmanager
def explain_full_disk(shown: Path) -> Iterator[None]:
    """Name the destination if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise DestinationError(
            f"{shown} cannot be written: {os.strerror(error.errno)}. Make room, or choose another "
            "-o."
        ) from error


def remove_dead_scratch(folder: Path) -> None:
    """Remove scratch folders in a folder that killed processes have left."""
    for scratch in folder.glob(f"{_SCRATCH}*"):
        remove_if_unlocked(scratch)


def remove_scratch_folders() -> None:
    """Remove the scratch folders of this process, which has to end now."""
    for scratch in tuple(_IN_USE):
        shutil.rmtree(scratch, ignore_errors=True)
