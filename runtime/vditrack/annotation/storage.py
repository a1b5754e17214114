"""Files in object storage, and wherever else fsspec can read, by addresses such as ``s3://...``.

Every error becomes one with a kind. Its reason has the answer of the service or the class of the
error, and never the text of a library, which may name endpoints.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from posixpath import join, normpath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from vditrack.annotation.failures import FailureKind, SourceError
from vditrack.errors import InputError, VditrackError, install_command

Report = Callable[[int], None]
"""Called with the number of bytes that were read."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_CHUNK = 16 << 20
"""Bytes of one request of a download."""
_VERSIONS = ("ETag", "etag", "generation", "blob_id", "md5Hash", "mtime", "LastModified", "created")
"""Keys under which file systems tell the version of a file, the most exact one first."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extras of vditrack by the schemes of addresses that they are for."""
_LACKS = re.compile(r"Credential|Token|ProfileNotFound|LoginRefresh")
"""Names of errors of libraries that find no valid credentials."""
_REFUSED_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
)
"""Codes of S3."""
_TRANSPORT = frozenset({"aiobotocore", "aiohttp", "botocore", "google", "requests", "urllib3"})
"""Packages whose errors are of the network, unless another reason is known."""
_BUSY = frozenset(
    getattr(errno, name)
    for name in ("EBUSY", "EIO", "EREMOTEIO", "ETIMEDOUT")
    if hasattr(errno, name)
)
"""Not every system has all of them."""


class AccessError(InputError):
    """This machine cannot use a storage: a package or credentials are missing or not valid."""


class NetworkError(SourceError):
    """A storage does not answer, after the retries of the library that speaks with it."""

    def __init__(self, reason: str) -> None:
        """Take the reason."""
        super().__init__("network", reason)

    def __reduce__(self) -> tuple[type[NetworkError], tuple[str]]:
        """Return what makes this error again in another process."""
        return type(self), (str(self),)


class Location(NamedTuple):
    """A file or a folder in a storage."""

    prefix: str
    """Begin of the address, such as ``s3://``."""
    key: str
    """Path as fsspec has it, such as ``bucket/folder/file``."""

    @property
    def address(self) -> str:
        """The address, such as ``s3://bucket/folder/file``."""
        return self.prefix + self.key

    def child(self, path: str) -> Location:
        """Return the location of a path below this folder, which may have ``..``."""
        return Location(self.prefix, normpath(join(self.key, path)))

    def parent(self) -> Location:
        """Return the folder that this is in."""
        return Location(self.prefix, self.key.rpartition("/")[0])


class Entry(NamedTuple):
    """What a storage says of a file or a folder."""

    is_folder: bool
    size: int | None
    """Bytes; None where it is not known."""
    version: str | None
    """Changes with the content; None where it is not known."""


def is_address(text: str) -> bool:
    """Return whether a text is an address, and not a path."""
    return _ADDRESS.match(text) is not None


def parse_address(address: str) -> Location:
    """Return the location that an address names.

    Raises:
        AccessError: fsspec, or the package for this kind of storage, is not installed.
        InputError: It is no address of a storage that is known, or has a password.

    """
    if urlsplit(address).password is not None:
        raise InputError(
            "an address has a password, and addresses are written in results. Give credentials "
            "by environment variables or configuration files."
        )
    _, key = _open(address)
    text = address.rstrip("/")
    key = key.rstrip("/")
    if not key:
        raise InputError(f"{address} names no bucket. Give an address such as s3://BUCKET/FOLDER.")
    scheme, mark, _ = address.partition("://")
    return Location(text.removesuffix(key) if text.endswith(key) else scheme + mark, key)


def describe(location: Location) -> Entry | None:
    """Return what is said of a file or a folder; None if there is none.

    Raises:
        InputError: It is not known.

    """
    files, key = _open(location.address)
    try:
        with _translate_errors(location):
            return _make_entry(files.info(key))
    except SourceError as error:
        if error.kind == "absent" and not _is_answer(error.__cause__):
            return None
        raise


def find_files(location: Location) -> dict[str, Entry]:
    """Return the files in a folder and all folders below it, by their paths in it, sorted.

    Raises:
        InputError: They are not known.

    """
    files, key = _open(location.address)
    with _translate_errors(location):
        found: Mapping[str, Any] = files.find(key, detail=True)
    entries = {name[len(key) :].lstrip("/"): _make_entry(info) for name, info in found.items()}
    # An object may be named like a folder, or lead out of it.
    return {
        name: entry
        for name, entry in sorted(entries.items())
        if not entry.is_folder and not {"", ".", ".."} & set(name.split("/"))
    }


def list_folder(location: Location) -> dict[str, Entry]:
    """Return what is in a folder, by name, sorted; nothing if there is no such folder.

    Raises:
        InputError: They are not known.

    """
    files, key = _open(location.address)
    try:
        with _translate_errors(location):
            infos: list[Any] = files.ls(key, detail=True)
    except SourceError as error:
        if error.kind == "absent" and not _is_answer(error.__cause__):
            return {}
        raise
    entries = {info["name"].rstrip("/").rpartition("/")[2]: _make_entry(info) for info in infos}
    own = key.rpartition("/")[2]
    return {
        name: entry
        for name, entry in sorted(entries.items())
        if name not in {"", ".", ".."} and (entry.is_folder or name != own)
    }


def match_pattern(pattern: Location) -> dict[Location, Entry]:
    """Return the files and folders that match a pattern, sorted.

    Raises:
        InputError: They are not known.

    """
    files, key = _open(pattern.address)
    with _translate_errors(pattern):
        found: Mapping[str, Any] = files.glob(key, detail=True)
    return {
        Location(pattern.prefix, name.rstrip("/")): _make_entry(info)
        for name, info in sorted(found.items())
    }


def read_bytes(location: Location) -> bytes:
    """Return the content of a small file.

    Raises:
        InputError: There is no such file, or it cannot be read.

    """
    files, key = _open(location.address)
    with _translate_errors(location):
        return bytes(files.cat_file(key))


def read_end(location: Location, count: int) -> bytes:
    """Return the last bytes of a file, at most ``count``.

    Raises:
        InputError: There is no such file, or it cannot be read.

    """
    files, key = _open(location.address)
    with _translate_errors(location):
        return bytes(files.cat_file(key, start=-count))


def download(location: Location, target: Path, report: Report) -> None:
    """Copy a file to a path on this machine; all of it is of one version where S3 says so.

    Args:
        location: The file.
        target: Path of the copy, whose folders are made.
        report: Called with the number of bytes that have come since the last call.

    Raises:
        InputError: There is no such file, or it cannot be read.
        OSError: The copy cannot be written.

    """
    files, key = _open(location.address)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _translate_errors(location):
        source = files.open(key, "rb", block_size=_CHUNK, cache_type="none")
    with source, target.open("wb") as copy:
        while True:
            with _translate_errors(location):
                chunk = source.read(_CHUNK)
            if not chunk:
                break
            copy.write(chunk)
            report(len(chunk))


def upload(path: Path, location: Location) -> None:
    """Copy a file of this machine to a storage; in object storage it appears when it is complete.

    Raises:
        NetworkError: The storage does not answer.
        InputError: The file cannot be written there.

    """
    files, key = _open(location.address)
    try:
        with _translate_errors(location):
            files.put_file(str(path), key)
    except SourceError as error:
        if isinstance(error, NetworkError):
            raise
        lack = "there is no such bucket. Create it, or choose another -o."
        reason = lack if error.kind == "absent" else str(error)
        # It is no fault of a recording.
        raise InputError(f"{location.address} cannot be written: {reason}") from error


def _open(address: str) -> tuple[Any, str]:
    """Return the file system of fsspec for an address, and the path in it."""
    scheme = address.partition("://")[0]
    try:
        files, key = import_module("fsspec.core").url_to_fs(address)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        names = ("annotate",) if extra is None else ("annotate", extra)
        remedy = "" if extra is None else f" Run `{install_command(*names)}`."
        raise AccessError(
            f"a package that reads {scheme}:// cannot be imported on {socket.gethostname()} "
            f"({str(error).rstrip('.')}).{remedy}"
        ) from error
    except Exception as error:
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            raise InputError(
                f"there is no storage {scheme}://. Give an address such as s3://BUCKET/FOLDER."
            ) from error
        raise _explain(address, error) from error
    # What was listed before may have changed.
    files.invalidate_cache()
    return files, str(key)


def _make_entry(info: Mapping[str, Any]) -> Entry:
    version = next((info[key] for key in _VERSIONS if info.get(key) is not None), None)
    size = info.get("size")
    return Entry(
        is_folder=info.get("type") == "directory",
        size=None if size is None else int(size),
        version=None if version is None else str(version),
    )


@contextmanager
def _translate_errors(location: Location) -> Iterator[None]:
    try:
        yield
    except VditrackError:
        raise
    # Each file system raises errors of its own libraries.
    except Exception as error:
        raise _explain(location.address, error) from error


def _explain(address: str, error: Exception) -> InputError:
    """Return the error that tells the user what is wrong with an address."""
    name, (code, answer) = type(error).__name__, _read_answer(error)
    if _LACKS.search(name) or code in _REFUSED_CREDENTIALS:
        return AccessError(
            f"{socket.gethostname()} has no valid credentials for {address} ({code or name}). Set "
            "those of the storage on each machine, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE for s3://."
        )
    said = f": {answer}" if answer else ""
    if isinstance(error, FileNotFoundError):
        remedy = " Check the address." if answer else ""
        return SourceError("absent", f"there is no {address}{said}.{remedy}")
    if isinstance(error, PermissionError):
        return SourceError(
            "refused",
            f"access to {address} is denied{said}. Give the credentials the permission.",
        )
    how = answer or name
    if _is_of_network(error):
        return NetworkError(
            f"the storage of {address} does not answer ({how}). Run the same command again when "
            "it does: what is done is kept."
        )
    kind: FailureKind = "refused" if answer else "error"
    return SourceError(kind, f"{address} cannot be used: {how}.")


def _is_of_network(error: Exception) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError, asyncio.TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno in _BUSY:
        return True
    return any(kind.__module__.partition(".")[0] in _TRANSPORT for kind in type(error).__mro__)


def _read_answer(error: BaseException | None) -> tuple[str | None, str | None]:
    """Return the code and the message by which S3 refused a request; None without an answer."""
    response = getattr(getattr(error, "__cause__", None), "response", None)
    if not isinstance(response, Mapping):
        return None, None
    said = response.get("Error", {})
    message = " ".join(str(said.get("Message", "")).split()).rstrip(".")
    return str(said.get("Code")), message or None


def _is_answer(error: BaseException | None) -> bool:
    """Return whether a service said more than that there is no such object, as of a bucket."""
    return _read_answer(error)[0] == "NoSuchBucket"
