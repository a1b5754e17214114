"""Reading of files that come from outside, with limits on their kind, size and nesting.

All readers of JSON and TOML use this module. It accepts only:

- Regular files: a FIFO would block its reader, and a device may have side effects when it is read.
- Files up to a size, so that the content fits in memory.
- JSON and TOML nested up to `MAX_DEPTH` levels, so that no parser runs out of stack.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

MAX_JSON_SIZE = 16 << 20
"""Largest accepted size of a JSON file, in bytes."""
MAX_TOML_SIZE = 1 << 20
"""Largest accepted size of a TOML file, in bytes."""
MAX_DEPTH = 64
"""Largest accepted nesting of JSON and TOML; a manifest has 6 levels."""
_MAX_DOTS = 1000
"""Most dots in a line of TOML. The time to parse a dotted key is quadratic in its length."""
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}

_Kind = TypeVar("_Kind")


class RefusedFileError(OSError):
    """A file is of a kind or size that is not read; ``strerror`` is the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        """Refuse ``path`` for a reason, which is a clause such as "it is a FIFO"."""
        super().__init__(errno.EPERM, reason, str(path))


class MalformedError(ValueError):
    """The content of a file is not what its reader expects; the message is a clause."""


@contextmanager
def open_regular_file(path: Path, *, follow_links: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file for reading, without waiting.

    Args:
        path: The file.
        follow_links: Whether the file may be a symbolic link.

    Raises:
        RefusedFileError: It is a folder, a FIFO, a socket, a device or a link that is not followed.
        OSError: It does not exist or cannot be read.

    """
    # Opening a device may have side effects, so its kind is looked up before. The kind of what was
    # opened is looked up again, in case that the file was replaced between both.
    _require_regular(path, path.stat() if follow_links else path.lstat())
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_BINARY", 0) | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0))
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise RefusedFileError(path, "it is a symbolic link") from error
        raise
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        _require_regular(path, os.fstat(descriptor))
        yield file


def read_file(path: Path, max_size: int, *, follow_links: bool = True) -> bytes:
    """Return the content of a regular file of limited size.

    Args:
        path: The file.
        max_size: Largest accepted size, in bytes.
        follow_links: Whether the file may be a symbolic link.

    Raises:
        RefusedFileError: It is not a regular file, is larger, or changes while it is read.
        OSError: It does not exist or cannot be read.

    """
    with open_regular_file(path, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_size:
            raise RefusedFileError(path, f"it is larger than the limit of {max_size:,} bytes")
        # One byte more tells whether it grows.
        content = file.read(size + 1)
    if len(content) != size:
        raise RefusedFileError(path, "it changes while it is read")
    return content


def decode_json(content: bytes, kind: type[_Kind], *, strict: bool = True) -> _Kind:
    """Decode JSON to a type.

    Args:
        content: The JSON.
        kind: The type.
        strict: Whether values are taken only if they have the type, and not converted to it.

    Raises:
        MalformedError: It is not JSON, is nested too deeply, or does not fit the type.

    """
    _check_depth(content)
    try:
        return msgspec.json.decode(content, type=kind, strict=strict)
    # Not all invalid UTF-8 is a DecodeError.
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(str(error)) from error
    except RecursionError as error:
        raise MalformedError(_TOO_DEEP) from error


def decode_python_json(content: bytes, kind: type[_Kind]) -> _Kind:
    """Decode JSON as Python writes it, with NaN and Infinity, to a type.

    Args:
        content: The JSON.
        kind: The type.

    Raises:
        MalformedError: It is not JSON, is nested too deeply, or does not fit the type.

    """
    _check_depth(content)
    try:
        value = json.loads(content.decode())
        # Halves of characters, which no file could have again.
        json.dumps(value, ensure_ascii=False).encode()
        return msgspec.convert(value, kind)
    # Also invalid UTF-8, and numbers with too many digits.
    except ValueError as error:
        raise MalformedError(str(error)) from error
    except RecursionError as error:
        raise MalformedError(_TOO_DEEP) from error


def decode_toml(content: bytes, kind: type[_Kind]) -> _Kind:
    """Decode TOML to a type.

    Raises:
        MalformedError: It is not TOML, is nested too deeply, or does not fit the type.

    """
    check_toml(content)
    try:
        fields = msgspec.toml.decode(content, type=dict[str, Any])
        _check_levels(fields)
        return msgspec.convert(fields, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(str(error)) from error
    except RecursionError as error:
        raise MalformedError(_TOO_DEEP) from error


def check_toml(content: bytes) -> None:
    """Check the size of TOML and the length of its dotted keys, before any parser reads it.

    Raises:
        MalformedError: It is too large, or a line has too many dots.

    """
    if len(content) > MAX_TOML_SIZE:
        raise MalformedError(f"it is larger than the limit of {MAX_TOML_SIZE:,} bytes")
    for number, line in enumerate(content.splitlines(), start=1):
        if line.count(b".") > _MAX_DOTS:
            raise MalformedError(f"line {number} has more than {_MAX_DOTS} dots")


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise RefusedFileError(path, f"it is {kind}, not a regular file")


def _check_depth(content: bytes) -> None:
    """Check the nesting of JSON without a parser, which would need stack for it."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(content):
        first = content[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedError(_TOO_DEEP)
        elif first in b"]}":
            depth -= 1


def _check_levels(fields: object) -> None:
    level = [fields]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise MalformedError(_TOO_DEEP)


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
