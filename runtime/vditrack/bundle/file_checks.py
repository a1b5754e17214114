"""Checks of a bundle's files: names, kinds and digests."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from vditrack.bundle.digest_cache import DigestCache
from vditrack.bundle.manifest import FileRecord
from vditrack.errors import BundleError
from vditrack.input_checks.files import RefusedFileError, open_regular_file

_CHUNK = 1 << 20


def file_record(path: Path) -> FileRecord:
    """Return the size and the digest of a file."""
    with open_regular_file(path) as file:
        return FileRecord(size=os.fstat(file.fileno()).st_size, sha256=_hash(file))


def check_folder(root: Path) -> None:
    """Check that a bundle's folder holds regular files and folders alone.

    A link could lead to a file outside the bundle, and a FIFO would block its reader. Names that
    begin with a dot are left out, since nothing reads them.

    Args:
        root: Folder of the bundle, which may be a link itself.

    Raises:
        BundleError: There is a link or a special file, or a folder cannot be read.

    """

    def fail(error: OSError) -> None:
        raise BundleError(f"{error.filename} cannot be read: {error.strerror}.") from error

    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *names):
            if not name.startswith("."):
                _require_plain(Path(folder) / name)


def check_file(root: Path, name: str, record: FileRecord, digests: DigestCache | None) -> None:
    """Check a file of a bundle against its record in the manifest.

    Args:
        root: Folder of the bundle.
        name: Path of the file relative to ``root``.
        record: Size and digest in the manifest.
        digests: Digests of files that were hashed before; None to hash every file.

    Raises:
        BundleError: The name leads out of the bundle, or the file is missing, altered, a link, or
            not a regular file.

    """
    path = root / name
    if not _is_inner_name(name):
        raise BundleError(
            f"{root / 'bundle.json'} names {name[:200]!r}, which is outside the bundle "
            "or not a plain path. Refused."
        )
    for parent in reversed(path.relative_to(root).parents[:-1]):
        if (root / parent).is_symlink():
            raise _linked(root / parent)
    try:
        with open_regular_file(path, follow_links=False) as file:
            intact = _matches(file, record, digests)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is missing. Copy the whole bundle again, or export it again."
        ) from error
    except RefusedFileError as error:
        raise _linked(path) if path.is_symlink() else _special(path, error) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    if not intact:
        raise BundleError(
            f"{path} was altered or cut short: its sha256 is not the one in bundle.json. "
            "Copy the bundle again, or export it again."
        )


def _matches(file: BinaryIO, record: FileRecord, digests: DigestCache | None) -> bool:
    before = os.fstat(file.fileno())
    # Size first: it is free, and a truncated copy is the usual damage.
    if before.st_size != record.size:
        return False
    if digests is not None and (known := digests.find(before)) is not None:
        return known == record.sha256
    digest = _hash(file)
    if digests is not None:
        digests.add(before, os.fstat(file.fileno()), digest)
    return digest == record.sha256


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _is_inner_name(name: str) -> bool:
    """Return whether a name is a plain relative path that stays in its folder."""
    if "\\" in name or "\0" in name or not name.isprintable():
        return False
    pure = PurePosixPath(name)
    # A second way to write a name would be a second name of the same file.
    return (
        str(pure) == name and bool(pure.parts) and ".." not in pure.parts and not pure.is_absolute()
    )


def _require_plain(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    if stat.S_ISLNK(mode):
        raise _linked(path)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BundleError(
            f"{path} is a FIFO, a socket or a device. A bundle holds regular files alone: delete "
            "it, or copy the bundle again."
        )


def _linked(path: Path) -> BundleError:
    return BundleError(
        f"{path} is a symbolic link, which could lead outside the bundle. Refused. Put the file "
        "itself there, as `cp -rL` does."
    )


def _special(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path}: {error.strerror}. Refused. Copy the bundle again.")
