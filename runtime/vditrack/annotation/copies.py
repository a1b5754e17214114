"""Copies recordings from a storage to this machine, for a worker that reads them."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from vditrack.annotation.annotate import Progress
from vditrack.annotation.failures import SourceError
from vditrack.annotation.mask_files import locate_remote_mask
from vditrack.annotation.recordings import Remote, Source
from vditrack.annotation.remote_sources import (
    digest_version,
    find_description,
    find_episode,
    list_content,
)
from vditrack.annotation.storage import Entry, Location, describe, download
from vditrack.errors import VditrackError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Copied(NamedTuple):
    """A recording on this machine."""

    source: Source
    version: str
    """Digest of the sizes and versions of its files; empty if not known, or if it is no copy."""


@dataclass
class Copies:
    """The recording that a worker has copied last.

    One at a time is kept, because the topics of a bag and the episodes of a video follow each
    other, and a recording is tracked after it was identified. Each file is where its address says,
    below a temporary folder, so that a mask is where the path of its recording says.
    """

    mask: str | None = None
    """Path of the mask of a recording, as the specification has it."""
    _root: Path | None = None
    _location: Location | None = None
    _kept: dict[Location, Entry] = field(default_factory=dict)

    @contextmanager
    def hold(self, source: Source, version: str, progress: Progress) -> Iterator[Copied]:
        """Yield a recording with its path on this machine; one on a disk is there.

        Messages of errors that the block raises name the address instead of the copy. After an
        error the copy is removed, and it is made again with the next attempt.

        Args:
            source: The recording.
            version: Its version, if it was identified; empty if not.
            progress: Called with the bytes that were copied, and those in all.

        Raises:
            SourceError: It cannot be copied, or is of another version.
            AccessError: This machine cannot use the storage.

        """
        if source.remote is None or source.is_copied:
            yield Copied(source, "")
            return
        try:
            yield self._copy(source, source.remote, version, progress)
        except BaseException as error:
            if isinstance(error, VditrackError):
                error.args = (self.name_addresses(str(error)),)
            self.remove()
            raise

    def name_addresses(self, text: str) -> str:
        """Return a text in which addresses stand for the paths of the files that are copied."""
        if self._root is None or self._location is None:
            return text
        return text.replace(f"{self._root}{os.sep}", self._location.prefix)

    def remove(self) -> None:
        """Remove the copy."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._root, self._location = None, None
        self._kept.clear()

    def _copy(self, source: Source, remote: Remote, version: str, progress: Progress) -> Copied:
        location = remote.location
        if self._location != location:
            self.remove()
        if self._root is None:
            self._root, self._location = Path(tempfile.mkdtemp()), location
        progress(0, None)
        files, found = self._describe(source, location, progress)
        if version and version != found:
            raise _explain_change(location)
        for other in self._kept.keys() - files.keys():
            del self._kept[other]
            self._place(other).unlink(missing_ok=True)
        # A file may be replaced while it or others are copied.
        if self._fetch(files, progress) and self._describe(source, location, progress)[1] != found:
            raise _explain_change(location)
        return Copied(replace(source, path=self._place(location)), found or "")

    def _describe(
        self, source: Source, location: Location, progress: Progress
    ) -> tuple[dict[Location, Entry], str | None]:
        """Return the files of a recording with its mask, and its version.

        The description of a data set is copied.
        """
        entry = describe(location)
        if entry is None:
            raise SourceError("absent", f"there is no {location.address}.")
        files, version = {location: entry}, digest_version({location.key: entry})
        if entry.is_folder:
            described = find_description(location)
            content = described or list_content(location)
            version = None if described else digest_version(content)
            files = {location.child(name): one for name, one in content.items()}
            self._place(location).mkdir(parents=True, exist_ok=True)
        if entry.is_folder and described and source.episode is not None:
            self._fetch(files, progress)
            frames, version = find_episode(
                self._place(location), source, lambda name: describe(location.child(name))
            )
            files |= {location.child(name): one for name, one in frames.items()}
        mask = None if self.mask is None else locate_remote_mask(self.mask, source)
        marked = None if mask is None else describe(mask)
        if mask is not None and marked is not None:
            files[mask] = marked
        return files, version

    def _fetch(self, files: Mapping[Location, Entry], progress: Progress) -> bool:
        """Copy the files that are not kept, and return whether there were some."""
        missing = {
            location: entry
            for location, entry in files.items()
            if entry.version is None or self._kept.get(location) != entry
        }
        total, done = sum(entry.size or 0 for entry in missing.values()), 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        for location, entry in missing.items():
            try:
                download(location, self._place(location), report)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise SourceError(
                    "error",
                    f"there is no room in {tempfile.gettempdir()} for a copy of "
                    f"{location.address} ({total / 1e9:.3g} GB). Set TMPDIR to a folder with more, "
                    "or lower --workers.",
                ) from error
            self._kept[location] = entry
        return bool(missing)

    def _place(self, location: Location) -> Path:
        """Return the path of the copy of a file or folder."""
        if self._root is None:
            raise ValueError("nothing is copied")
        parts = [part for part in location.key.split("/") if part not in {"", ".", ".."}]
        return self._root.joinpath(*parts)


def _explain_change(location: Location) -> SourceError:
    return SourceError(
        "changed",
        f"{location.address} changed while it was read. Run the command again when it is complete.",
    )
