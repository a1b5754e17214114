"""Atomic writing of files and folders: an unfinished result never has its final name."""

import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vditrack.errors import InputError


@contextmanager
def staged_folder(destination: Path, replaceable: Collection[str]) -> Iterator[Path]:
    """Yield a scratch folder that is renamed to ``destination`` when the block succeeds.

    An existing ``destination`` is replaced only then, and only if all files in it have
    ``replaceable`` names. If the block raises, ``destination`` is left as it was and the scratch
    folder is removed.

    Raises:
        InputError: The parent of ``destination`` cannot be written, or ``destination`` holds files
            with other names.

    """
    _refuse_foreign(destination, replaceable)
    with _scratch_beside(destination) as scratch:
        yield scratch
        if destination.exists():
            _replace(destination, scratch)
        else:
            scratch.rename(destination)


@contextmanager
def staged_file(destination: Path) -> Iterator[Path]:
    """Yield a scratch path of the same file name that replaces ``destination`` on success."""
    with _scratch_beside(destination) as scratch:
        yield scratch / destination.name
        (scratch / destination.name).replace(destination)


def _replace(destination: Path, scratch: Path) -> None:
    with _scratch_beside(destination) as aside:
        old = destination.rename(aside / "old")
        try:
            scratch.rename(destination)
        finally:
            if not destination.exists():
                old.rename(destination)


def _refuse_foreign(destination: Path, replaceable: Collection[str]) -> None:
    if not destination.exists():
        return
    if not destination.is_dir():
        raise InputError(f"{destination} is a file. Choose another folder with -o.")
    foreign = sorted({path.name for path in destination.iterdir()} - set(replaceable))
    if foreign:
        raise InputError(
            f"{destination} holds other files ({foreign[0]}) and will not be replaced. "
            "Choose another folder with -o."
        )


@contextmanager
def _scratch_beside(destination: Path) -> Iterator[Path]:
    """Yield a new folder beside ``destination``, removed afterwards if it is still there."""
    parent = destination.absolute().parent
    # Named before it exists: an interrupt between its creation and the block would leave it behind.
    scratch = parent / f".{destination.name}.{secrets.token_hex(4)}"
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            scratch.mkdir(mode=0o755)
        except OSError as error:
            raise InputError(
                f"cannot write in {parent}: {error.strerror}. Choose another -o."
            ) from error
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
