"""A cache of the digests of large files, so that they are not hashed at every start.

A file counts as unchanged if its device, inode, size, modification time and change time are those
of the time when it was hashed. The kernel sets the change time, and programs cannot choose it. The
cache lies in the user's cache folder, which no one else writes.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import msgspec

from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.input_checks.files import MalformedError, decode_json, read_file

SMALLEST = 8 << 20
"""Size in bytes from which on digests are stored; smaller files are hashed within milliseconds."""
_SETTLED = 3.0
"""Seconds after which a further change of a file changes its times, on any file system."""
_MAX_ENTRIES = 1000
_MAX_SIZE = 1 << 20
_LOG = logging.getLogger("vditrack")


class _Content(msgspec.Struct):
    digests: dict[str, str]


class DigestCache:
    """Digests of files by what the file system says of them."""

    def __init__(self, path: Path) -> None:
        """Read the cache at ``path``; an unreadable one counts as empty."""
        self._path = path
        self._digests = _read(path)
        self._changed = False

    def find(self, status: os.stat_result) -> str | None:
        """Return the sha256 of a file that was hashed before and is unchanged; else None."""
        return self._digests.get(_key(status))

    def add(self, before: os.stat_result, after: os.stat_result, sha256: str) -> None:
        """Store the digest of a large file, unless it may have changed meanwhile.

        Args:
            before: Status of the open file before it was hashed.
            after: Status after that.
            sha256: The digest.

        """
        age = time.time() - max(after.st_mtime, after.st_ctime)
        if after.st_size < SMALLEST or _key(before) != _key(after) or age < _SETTLED:
            return
        self._digests[_key(after)] = sha256
        self._changed = True

    def save(self) -> None:
        """Write the cache if it changed; if that fails, files are hashed at the next start too."""
        if not self._changed:
            return
        newest = dict(list(self._digests.items())[-_MAX_ENTRIES:])
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with staged_file(self._path) as staged:
                staged.write_bytes(msgspec.json.encode(_Content(newest)))
        except (OSError, InputError) as error:
            _LOG.debug("the digests of large files are not stored: %s", error)


def open_digest_cache() -> DigestCache | None:
    """Return the user's cache; None if there is no home folder."""
    folder = cache_folder()
    return None if folder is None else DigestCache(folder / "digests.json")


def cache_folder() -> Path | None:
    """Return vditrack's folder for caches of this user; None if there is no home folder.

    It is ``$XDG_CACHE_HOME/vditrack``, or ``~/.cache/vditrack`` (XDG base directories).
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117 - of a text that may be empty
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:
            return None
    return Path(base) / "vditrack"


def _key(status: os.stat_result) -> str:
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(map(str, parts))


def _read(path: Path) -> dict[str, str]:
    try:
        # A file of another user could hold wrong digests.
        if hasattr(os, "getuid") and path.lstat().st_uid != os.getuid():
            return {}
        content = read_file(path, _MAX_SIZE, follow_links=False)
        return decode_json(content, _Content).digests
    except (OSError, MalformedError):
        return {}
