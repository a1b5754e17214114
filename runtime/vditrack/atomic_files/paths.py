"""Paths that results are written to, and the errors that name them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vditrack.errors import InputError

_SYSTEM_NAMES = frozenset({"lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Names that a file system has in its root folder, which are no files of the user."""


class DestinationError(InputError):
    """A destination cannot be written. The message ends with the option for another one: -o."""


@contextmanager
def named_option(option: str) -> Iterator[None]:
    """Name another option than -o in errors, for destinations that it gives.

    Args:
        option: The option, such as ``--report``.

    Raises:
        DestinationError: The block raises one.

    """
    try:
        yield
    except DestinationError as error:
        raise DestinationError(f"{str(error).removesuffix('-o.')}{option}.") from error


def follow_links(path: Path) -> Path:
    """Return the absolute path that a path names, also if it does not exist."""
    try:
        return path.absolute().resolve()
    # Links in a circle.
    except (OSError, RuntimeError) as error:
        raise explain_refusal(path, error) from error


def find_existing(path: Path) -> Path:
    """Return the path, or the lowest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def require_folder(path: Path, shown: Path) -> Path:
    """Return the path, which has to be a folder.

    Args:
        path: The path.
        shown: The destination as the user named it, for the message.

    Raises:
        InputError: It is a file.

    """
    if not path.is_dir():
        raise DestinationError(f"cannot write in {shown}: {path} is a file. Choose another -o.")
    return path


def require_file_name(destination: Path) -> Path:
    """Return the absolute path of a file that can be replaced, whether it exists or not."""
    path = follow_links(destination)
    if path.is_dir():
        raise InputError(f"{destination} is a folder. Give the name of a file.")
    if path.exists() and not path.is_file():
        raise InputError(f"{destination} is not a regular file. Give the name of another file.")
    return path


def is_folder(path: Path, shown: Path) -> bool:
    """Return whether a folder exists.

    Args:
        path: The path.
        shown: The path as the user named it, for the message.

    Raises:
        InputError: It is a file, or its parents cannot be read.

    """
    try:
        exists = path.exists()
    except OSError as error:
        raise explain_refusal(shown, error) from error
    if exists and not path.is_dir():
        raise DestinationError(f"{shown} is a file. Choose another folder with -o.")
    return exists


def list_foreign(folder: Path, expected: Collection[str], shown: Path | None = None) -> list[str]:
    """Return the names in a folder that are not expected, sorted.

    Names that begin with a dot, and those that a file system makes itself, do not count.

    Args:
        folder: The folder.
        expected: Names that it may hold.
        shown: The folder as the user named it, for the message.

    Raises:
        InputError: The folder cannot be read.

    """
    try:
        found = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise explain_refusal(shown or folder, error) from error
    foreign = found - set(expected) - _SYSTEM_NAMES
    return sorted(name for name in foreign if not name.startswith("."))


def refuse_foreign(folder: Path, replaceable: Collection[str], shown: Path) -> None:
    """Check that a folder holds nothing but what may be replaced.

    Args:
        folder: The folder.
        replaceable: Names that it may hold, beside those that begin with a dot.
        shown: The folder as the user named it, for the message.

    Raises:
        InputError: It holds other files, or cannot be read.

    """
    foreign = list_foreign(folder, replaceable, shown)
    if foreign:
        raise DestinationError(
            f"{shown} holds other files ({foreign[0]}) and will not be replaced. "
            "Choose another folder with -o."
        )


def explain_refusal(path: Path, error: Exception) -> DestinationError:
    """Return the error for a path that cannot be written."""
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return DestinationError(f"cannot write in {path}: {reason}. Choose another -o.")
