"""The results of a job: what is done, and what failed."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

from vditrack.annotation.folders import Folder
from vditrack.annotation.formats.selection import list_missing, locate_file
from vditrack.annotation.job_tables import (
    FAILED,
    RECORDINGS,
    FailedUnit,
    Recorded,
    read_failed,
    read_recordings,
)
from vditrack.annotation.recordings import Source, make_source
from vditrack.annotation.settings import (
    FORMATS,
    JOB_FILE,
    MASKS,
    THUMBNAILS,
    TRACKS,
    FormatName,
    Settings,
    decode_settings,
)
from vditrack.annotation.storage import NetworkError
from vditrack.annotation.track_tables import SUFFIX, Record
from vditrack.annotation.units import Identity, Unit, read_status
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.input_checks.files import MalformedError, decode_json
from vditrack.input_checks.text import escape_surrogates

SUMMARY, REPORT = "summary.json", "report.html"
_FOLDERS = (TRACKS, THUMBNAILS, MASKS, *FORMATS)
_NAMES = (JOB_FILE, *_FOLDERS, RECORDINGS, FAILED, SUMMARY, REPORT)
_IDENTITIES = ".sources.json"
_SAVE = 60.0
"""Seconds after which identities are saved, so that little is read again after a job is killed."""
_REQUESTS = 16
"""Requests to a storage that are made at a time."""


class Results:
    """The results of a job, which one process writes at a time."""

    def __init__(self, folder: Folder) -> None:
        """Take an existing folder that belongs to the job."""
        self.folder = folder
        self.files: dict[str, str] = {}
        """Names of the files of tracks, without their suffix, by the id of the unit."""
        self._records: dict[str, Record | None] = {}
        """Of files that were read ahead, by the id of the unit."""
        self._formats = {one: frozenset(folder.list_names(one)) for one in FORMATS}
        """Names of the files of each format, when this was opened."""
        self.find_files()
        if folder.is_remote:
            with ThreadPoolExecutor(_REQUESTS) as pool:
                self._records = dict(zip(self.files, pool.map(self._read, self.files), strict=True))
        self._identities = _read_identities(folder)
        self._saved = time.monotonic()

    def find_files(self) -> None:
        """List the files of tracks that are there now."""
        names = [Path(name) for name in self.folder.list_names(TRACKS)]
        stems = [name.stem for name in names if name.suffix == SUFFIX]
        self.files = {stem.rpartition("-")[2]: stem for stem in stems}

    def find_record(self, unit_id: str) -> Record | None:
        """Return what the file of a unit's tracks says of itself; None if the unit is not done."""
        if unit_id not in self.files:
            return None
        return self._records[unit_id] if unit_id in self._records else self._read(unit_id)

    def list_missing(self, unit_id: str, formats: Sequence[FormatName]) -> list[FormatName]:
        """Return the formats of which a unit with tracks has no file yet."""
        name = self.files[unit_id]
        known = [
            one for one in formats if locate_file(one, name)[len(one) + 1 :] in self._formats[one]
        ]
        others = [one for one in formats if one not in known]
        missing = list_missing(self.folder, name, others)
        return [one for one in formats if one in missing]

    def list_others(self, known: Collection[str]) -> list[Recorded]:
        """Return the recordings that earlier runs have done.

        Args:
            known: Ids of units that are left out.

        """
        found = {unit_id: self.find_record(unit_id) for unit_id in self.files.keys() - set(known)}
        records = {unit_id: record for unit_id, record in found.items() if record is not None}
        rows = self._read_table()
        # Files whose rows were lost.
        for unit_id in sorted(records.keys() - {unit_id for unit_id, _ in rows}):
            one = records[unit_id]
            rows.append(
                (unit_id, make_source(one.source, one.topic, one.start, one.end, one.episode))
            )
        return [
            Recorded(source, self.files[unit_id], records[unit_id])
            for unit_id, source in rows
            if unit_id in records
        ]

    def add_file(self, unit: Unit) -> None:
        """Note that the tracks of a unit are written."""
        self.files[unit.id] = unit.name
        self._records.pop(unit.id, None)

    def read_thumbnail(self, name: str) -> bytes | None:
        """Return the JPEG of a unit by its name; None if it was removed."""
        return self.folder.read(f"{THUMBNAILS}/{name}.jpg")

    def find_identity(self, source: Source) -> Identity | None:
        """Return the identity of a recording that did not change since it was identified."""
        known = self._identities.get(_make_key(source))
        if known is None:
            return None
        if source.remote is not None:
            return known if known.status and known.status == source.remote.version else None
        try:
            return known if read_status(source)[0] == known.status else None
        except (InputError, OSError):
            return None

    def keep_identity(self, source: Source, identity: Identity) -> None:
        """Remember the identity of a recording."""
        self._identities[_make_key(source)] = identity
        if time.monotonic() - self._saved > _SAVE:
            self.save_identities()

    def save_identities(self) -> None:
        """Write the identities that are remembered."""
        with self.folder.open_new(_IDENTITIES) as path, staged_file(path) as scratch:
            scratch.write_bytes(msgspec.json.encode(self._identities))
        self._saved = time.monotonic()

    def read_failed(self) -> list[FailedUnit]:
        """Return the units that failed in earlier runs."""
        with self.folder.open_copy(FAILED) as path:
            return read_failed(path, self.folder.locate(FAILED)) if path.is_file() else []

    def remove_scratch(self) -> None:
        """Remove what workers that were killed have left."""
        for name in ("", *_FOLDERS):
            self.folder.remove_scratch(name)

    def _read(self, unit_id: str) -> Record | None:
        try:
            record = self.folder.read_record(f"{TRACKS}/{self.files[unit_id]}{SUFFIX}")
        except NetworkError:
            raise
        except InputError:
            # A file that was damaged is written again.
            return None
        return record if record.id == unit_id else None

    def _read_table(self) -> list[tuple[str, Source]]:
        with self.folder.open_copy(RECORDINGS) as path:
            return read_recordings(path)


@contextmanager
def open_results(folder: Folder, settings: Settings) -> Iterator[Results]:
    """Yield the results in a folder, new or of an earlier run with the same settings.

    Raises:
        InputError: The folder cannot be written, another process writes in it, or it has results of
            other settings or files that are no results.

    """
    check_results_folder(folder, settings)
    with folder.lock():
        if not folder.exists(JOB_FILE):
            with folder.open_new(JOB_FILE) as path, staged_file(path) as scratch:
                text = msgspec.json.format(msgspec.json.encode(settings), indent=2)
                scratch.write_bytes(text + b"\n")
        results = Results(folder)
        results.remove_scratch()
        yield results


def check_results_folder(folder: Folder, settings: Settings) -> None:
    """Check that the results of a job can be written in a folder, and make nothing.

    Raises:
        InputError: The folder cannot be written, or it has results of other settings or files that
            are no results.

    """
    folder.check()
    path = folder.locate(JOB_FILE)
    try:
        content = folder.read(JOB_FILE)
        if content is None:
            _refuse_taken(folder)
            return
        earlier = decode_settings(content)
    except (OSError, MalformedError) as error:
        raise InputError(f"{path} is not the file of a job: {error}. Choose another -o.") from error
    if earlier != settings:
        pairs = zip(*(msgspec.structs.astuple(s) for s in (earlier, settings)), strict=True)
        names = zip(Settings.__struct_fields__, pairs, strict=True)
        differing = ", ".join(name for name, (a, b) in names if a != b)
        raise InputError(
            f"{folder} has results of other settings ({differing}; see {path}). Give the same, or "
            "choose another folder with -o."
        )


def _refuse_taken(folder: Folder) -> None:
    present = folder.list_names("")
    taken = [name for name in _NAMES if name in present]
    if taken:
        raise InputError(
            f"{folder} holds {taken[0]}, which would be replaced, and no {JOB_FILE} of an "
            "earlier run. Choose another folder with -o."
        )


def _make_key(source: Source) -> str:
    place = str(source.path.absolute()) if source.remote is None else source.place
    key = escape_surrogates(place)
    # No path has this character.
    return key if source.episode is None else f"{key}\0{source.episode}\0{source.topic}"


def _read_identities(folder: Folder) -> dict[str, Identity]:
    try:
        return decode_json(folder.read(_IDENTITIES) or b"", dict[str, Identity])
    except (OSError, MalformedError):
        # They are computed again.
        return {}
