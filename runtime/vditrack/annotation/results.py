"""The folder of a job's results: what is done in it, and what failed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from vditrack.annotation.job_tables import (
    FAILED,
    RECORDINGS,
    FailedUnit,
    Recorded,
    read_failed,
    read_recordings,
)
from vditrack.annotation.settings import (
    FORMATS,
    JOB_FILE,
    MASKS,
    THUMBNAILS,
    TRACKS,
    Settings,
    read_settings,
)
from vditrack.annotation.sources import Source
from vditrack.annotation.track_tables import SUFFIX, Record, read_record
from vditrack.annotation.units import Identity, Unit, read_status
from vditrack.atomic_files import check_folder_destination, staged_file
from vditrack.atomic_files.locks import locked_folder
from vditrack.errors import InputError
from vditrack.input_checks.files import MalformedError, decode_json, read_file
from vditrack.input_checks.text import escape_surrogates

SUMMARY, REPORT = "summary.json", "report.html"
_FOLDERS = (TRACKS, THUMBNAILS, MASKS, *FORMATS)
_NAMES = (JOB_FILE, *_FOLDERS, RECORDINGS, FAILED, SUMMARY, REPORT)
_LOCK, _IDENTITIES = ".lock", ".sources.json"
_SCRATCH = ".vditrack-*"
_MAX_IDENTITIES = 1 << 30
"""Largest size of the file of identities, in bytes."""


class Results:
    """The folder of a job's results, which one process writes at a time."""

    def __init__(self, root: Path) -> None:
        """Take an existing folder that belongs to the job."""
        self.root = root
        self.files: dict[str, str] = {}
        """Names of the files of tracks, without their suffix, by the id of the unit."""
        self.find_files()
        self._identities = _read_identities(root / _IDENTITIES)

    def find_files(self) -> None:
        """List the files of tracks that are there now."""
        paths = sorted((self.root / TRACKS).glob(f"*{SUFFIX}"))
        self.files = {path.stem.rpartition("-")[2]: path.stem for path in paths}

    def find_record(self, unit_id: str) -> Record | None:
        """Return what the file of a unit's tracks says of itself; None if the unit is not done."""
        name = self.files.get(unit_id)
        if name is None:
            return None
        try:
            record = read_record(self.root / TRACKS / f"{name}{SUFFIX}")
        except InputError:
            # A file that was damaged is written again.
            return None
        return record if record.id == unit_id else None

    def list_others(self, known: Collection[str]) -> list[Recorded]:
        """Return the recordings that earlier runs have done.

        Args:
            known: Ids of units that are left out.

        """
        found = {unit_id: self.find_record(unit_id) for unit_id in self.files.keys() - set(known)}
        records = {unit_id: record for unit_id, record in found.items() if record is not None}
        rows = read_recordings(self.root / RECORDINGS)
        # Files whose rows were lost.
        for unit_id in sorted(records.keys() - {unit_id for unit_id, _ in rows}):
            one = records[unit_id]
            rows.append(
                (unit_id, Source(Path(one.source), one.topic, one.start, one.end, one.episode))
            )
        return [
            Recorded(source, self.files[unit_id], records[unit_id])
            for unit_id, source in rows
            if unit_id in records
        ]

    def add_file(self, unit: Unit) -> None:
        """Note that the tracks of a unit are written."""
        self.files[unit.id] = unit.name

    def read_thumbnail(self, name: str) -> bytes | None:
        """Return the JPEG of a unit by its name; None if it was removed."""
        path = self.root / THUMBNAILS / f"{name}.jpg"
        return path.read_bytes() if path.is_file() else None

    def find_identity(self, source: Source) -> Identity | None:
        """Return the identity of a recording that did not change since it was identified."""
        known = self._identities.get(_make_key(source))
        if known is None:
            return None
        try:
            return known if read_status(source)[0] == known.status else None
        except (InputError, OSError):
            return None

    def keep_identity(self, source: Source, identity: Identity) -> None:
        """Remember the identity of a recording."""
        self._identities[_make_key(source)] = identity

    def save_identities(self) -> None:
        """Write the identities that are remembered."""
        with staged_file(self.root / _IDENTITIES) as scratch:
            scratch.write_bytes(msgspec.json.encode(self._identities))

    def read_failed(self) -> list[FailedUnit]:
        """Return the units that failed in earlier runs."""
        path = self.root / FAILED
        return read_failed(path) if path.is_file() else []

    def remove_scratch(self) -> None:
        """Remove what workers that were killed have left."""
        for folder in (self.root, *(self.root / name for name in _FOLDERS)):
            for scratch in folder.glob(_SCRATCH):
                shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def open_results(root: Path, settings: Settings) -> Iterator[Results]:
    """Yield the folder of a job's results, new or of an earlier run with the same settings.

    Raises:
        InputError: The folder cannot be written, another process writes in it, or it has results of
            other settings or files that are no results.

    """
    check_results_folder(root, settings)
    root.mkdir(parents=True, exist_ok=True)
    # The folder, too, which other verbs lock; not every file system can.
    with locked_folder(root, root), _locked_file(root):
        if not (root / JOB_FILE).exists():
            with staged_file(root / JOB_FILE) as scratch:
                text = msgspec.json.format(msgspec.json.encode(settings), indent=2)
                scratch.write_bytes(text + b"\n")
        results = Results(root)
        results.remove_scratch()
        yield results


@contextmanager
def _locked_file(root: Path) -> Iterator[None]:
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another `vditrack annotate` writes in {root}. Wait for it, or choose another -o."
            ) from error
        yield
    finally:
        os.close(descriptor)


def check_results_folder(root: Path, settings: Settings) -> None:
    """Check that the results of a job can be written in a folder, and make nothing.

    Raises:
        InputError: The folder cannot be written, or it has results of other settings or files that
            are no results.

    """
    check_folder_destination(root)
    place = str(root.resolve())
    if escape_surrogates(place) != place:
        raise InputError(
            f"the name of {root} is not UTF-8, so that Parquet files cannot be written in it. "
            "Choose another folder with -o."
        )
    path = root / JOB_FILE
    if not path.exists():
        taken = [name for name in _NAMES if (root / name).exists()]
        if taken:
            raise InputError(
                f"{root} holds {taken[0]}, which would be replaced, and no {JOB_FILE} of an "
                "earlier run. Choose another folder with -o."
            )
        return
    try:
        earlier = read_settings(root)
    except (OSError, MalformedError) as error:
        raise InputError(f"{path} is not the file of a job: {error}. Choose another -o.") from error
    if earlier != settings:
        pairs = zip(*(msgspec.structs.astuple(s) for s in (earlier, settings)), strict=True)
        names = zip(Settings.__struct_fields__, pairs, strict=True)
        differing = ", ".join(name for name, (a, b) in names if a != b)
        raise InputError(
            f"{root} has results of other settings ({differing}; see {path}). Give the same, or "
            "choose another folder with -o."
        )


def _make_key(source: Source) -> str:
    key = escape_surrogates(str(source.path.absolute()))
    # No path has this character.
    return key if source.episode is None else f"{key}\0{source.episode}\0{source.topic}"


def _read_identities(path: Path) -> dict[str, Identity]:
    try:
        return decode_json(read_file(path, _MAX_IDENTITIES), dict[str, Identity])
    except (OSError, MalformedError):
        # They are computed again.
        return {}
