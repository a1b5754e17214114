"""The folder of a job's results, on a disk or in a storage: what workers and the job do with it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

from vditrack.annotation.failures import SourceError
from vditrack.annotation.scratch import open_scratch
from vditrack.annotation.storage import (
    Location,
    describe,
    download,
    is_address,
    list_folder,
    parse_address,
    read_bytes,
    read_end,
    upload,
)
from vditrack.annotation.track_tables import Record, read_record
from vditrack.atomic_files import check_folder_destination
from vditrack.atomic_files.locks import locked_folder
from vditrack.errors import InputError
from vditrack.input_checks.text import escape_surrogates

_LOCK = ".lock"
_SCRATCH = ".vditrack-*"
_END = 1 << 16
"""Bytes at the end of a Parquet file that are read first; mostly they hold its metadata."""


class Folder(Protocol):
    """A folder for results. Files are named by their relative paths."""

    is_remote: bool
    """Whether a look at a file takes long."""

    def __str__(self) -> str:
        """Return the path or address as it was given."""
        ...

    def locate(self, name: str) -> str:
        """Return the path or address of a file."""
        ...

    def check(self) -> None:
        """Check that it can be a folder for results, and make nothing; raise an `InputError`."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the folder, and keep other jobs out of it where that can be done."""
        ...

    def list_names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder below it, or in itself, sorted."""
        ...

    def exists(self, name: str) -> bool:
        """Return whether there is a file or a folder."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        ...

    def read_record(self, name: str) -> Record:
        """Return what a file of tracks says of itself; raise an `InputError` if it is damaged."""
        ...

    @contextmanager
    def open_copy(self, name: str) -> Iterator[Path]:
        """Yield a path where a file can be read; there is none if there is no such file."""
        ...

    @contextmanager
    def open_new(self, name: str) -> Iterator[Path]:
        """Yield a path that a function writes, which makes the folders above it.

        The function lets the file appear when it is complete, and so does this folder.
        """
        ...

    def remove_scratch(self, folder: str) -> None:
        """Remove what workers that were killed have left in a folder below it."""


def open_folder(place: str) -> Folder:
    """Return the folder with a path or an address.

    Raises:
        InputError: Its storage cannot be used.

    """
    return RemoteFolder(parse_address(place)) if is_address(place) else LocalFolder(Path(place))


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk."""

    path: Path
    is_remote = False

    def __str__(self) -> str:
        """See `Folder`."""
        return str(self.path)

    def locate(self, name: str) -> str:
        """See `Folder`."""
        return str(self.path / name)

    def check(self) -> None:
        """See `Folder`."""
        check_folder_destination(self.path)
        place = str(self.path.resolve())
        if escape_surrogates(place) != place:
            raise InputError(
                f"the name of {self} is not UTF-8, so that Parquet files cannot be written in it. "
                "Choose another folder with -o."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """See `Folder`."""
        self.path.mkdir(parents=True, exist_ok=True)
        # The folder, too, which other verbs lock; not every file system can.
        with locked_folder(self.path, self.path):
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise InputError(
                        f"another `vditrack annotate` writes in {self}. Wait for it, or choose "
                        "another -o."
                    ) from error
                yield
            finally:
                os.close(descriptor)

    def list_names(self, folder: str) -> list[str]:
        """See `Folder`."""
        return sorted(path.name for path in (self.path / folder).glob("*"))

    def exists(self, name: str) -> bool:
        """See `Folder`."""
        return (self.path / name).exists()

    def read(self, name: str) -> bytes | None:
        """See `Folder`."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def read_record(self, name: str) -> Record:
        """See `Folder`."""
        return read_record(self.path / name)

    @contextmanager
    def open_copy(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        yield self.path / name

    @contextmanager
    def open_new(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        yield self.path / name

    def remove_scratch(self, folder: str) -> None:
        """See `Folder`."""
        for scratch in (self.path / folder).glob(_SCRATCH):
            shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder in a storage. Files are made on this machine, then copied to it."""

    location: Location
    is_remote = True

    def __str__(self) -> str:
        """See `Folder`."""
        return self.location.address

    def locate(self, name: str) -> str:
        """See `Folder`."""
        return self.location.child(name).address

    def check(self) -> None:
        """See `Folder`."""
        entry = describe(self.location)
        if entry is not None and not entry.is_folder:
            raise InputError(f"{self} is a file. Choose another -o.")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """See `Folder`. Storages have no locks."""
        yield

    def list_names(self, folder: str) -> list[str]:
        """See `Folder`."""
        return list(list_folder(self.location.child(folder)))

    def exists(self, name: str) -> bool:
        """See `Folder`."""
        return describe(self.location.child(name)) is not None

    def read(self, name: str) -> bytes | None:
        """See `Folder`."""
        try:
            return read_bytes(self.location.child(name))
        except SourceError as error:
            if error.kind != "absent":
                raise
            return None

    def read_record(self, name: str) -> Record:
        """See `Folder`."""
        location = self.location.child(name)
        end = read_end(location, _END)
        # The last eight bytes are the size of the metadata before them, and a mark.
        size = int.from_bytes(end[-8:-4], "little") + 8
        if len(end) == _END < size:
            end = read_end(location, size)
        return read_record(Path(location.address), BytesIO(end))

    @contextmanager
    def open_copy(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        location = self.location.child(name)
        with open_scratch() as scratch:
            path = scratch / Path(name).name
            if describe(location) is not None:
                download(location, path, lambda _: None)
            yield path

    @contextmanager
    def open_new(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        with open_scratch() as scratch:
            path = scratch / Path(name).name
            yield path
            upload(path, self.location.child(name))

    def remove_scratch(self, folder: str) -> None:
        """See `Folder`. Nothing is left in a storage."""
