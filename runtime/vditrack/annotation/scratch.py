"""Temporary folders of jobs, which the next job removes if one is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vditrack.atomic_files.locks import make_locked_folder, remove_if_unlocked

_SCRATCH = "vditrack-annotate-"
"""Begin of the names of the folders."""


def make_scratch() -> tuple[Path, int | None]:
    """Return a new temporary folder and its lock; those of jobs that were killed are removed."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_SCRATCH}*"):
        remove_if_unlocked(left)
    folder = root / f"{_SCRATCH}{uuid.uuid4().hex}"
    return folder, make_locked_folder(folder)


@contextmanager
def open_scratch() -> Iterator[Path]:
    """Yield a new temporary folder, and remove it afterwards."""
    folder, lock = make_scratch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)
