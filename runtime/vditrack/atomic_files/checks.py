"""Checks of a destination, before the work whose result it is to hold."""

import shutil
from collections.abc import Collection
from pathlib import Path

from vditrack.atomic_files.paths import (
    find_existing,
    follow_links,
    refuse_foreign,
    require_file_name,
    require_folder,
)
from vditrack.atomic_files.scratch import scratch_folder
from vditrack.errors import InputError


def check_file_destination(destination: Path) -> None:
    """Check that a file can be written, before the work that it is to hold the result of.

    Raises:
        InputError: It is a folder or a device, or its folder cannot be written.

    """
    # Folders that do not exist are made when the file is written.
    folder = require_folder(find_existing(require_file_name(destination).parent), destination)
    with scratch_folder(folder, destination):
        pass


def check_folder_destination(destination: Path, replaceable: Collection[str] | None = None) -> None:
    """Check that files can be made in a folder, before the work that gives their content.

    Args:
        destination: The folder, which need not exist.
        replaceable: Names that it may hold, as in `staged_folder`; None for any.

    Raises:
        InputError: It is a file, holds others than replaceable files, or cannot be written.

    """
    root = follow_links(destination)
    existing = require_folder(find_existing(root), destination)
    if replaceable is not None and existing == root:
        refuse_foreign(root, replaceable, destination)
    with scratch_folder(existing, destination):
        pass


def check_disk_space(destination: Path, wanted: float, what: str, remedy: str) -> None:
    """Check that the disk has room for a result.

    Args:
        destination: The file or folder of the result, which need not exist.
        wanted: Size of the result, in bytes.
        what: The result, for the message.
        remedy: What to do, for the message.

    Raises:
        InputError: The disk is too small.

    """
    free = shutil.disk_usage(find_existing(follow_links(destination))).free
    if wanted > free:
        raise InputError(
            f"{what} takes about {wanted / 1e9:.3g} GB, and {destination} has {free / 1e9:.3g} GB "
            f"free. {remedy}"
        )
