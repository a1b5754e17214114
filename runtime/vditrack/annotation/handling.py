"""What a worker does: identifies recordings, and writes the tracks of units."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec

from vditrack.annotation.annotate import Progress, annotate_unit
from vditrack.annotation.failures import JobError, SourceError
from vditrack.annotation.formats.content import read_content
from vditrack.annotation.formats.selection import list_missing, locate_file, write_format
from vditrack.annotation.object_masks import write_masks
from vditrack.annotation.settings import MASKS, THUMBNAILS, TRACKS, FormatName, Settings
from vditrack.annotation.sources import Source
from vditrack.annotation.track_tables import SUFFIX, Record, make_record, read_record, write_tracks
from vditrack.annotation.units import Identity, Unit, identify
from vditrack.atomic_files import staged_file
from vditrack.bundle.folder import MANIFEST
from vditrack.errors import InputError, VditrackError
from vditrack.tracker import Tracker


@dataclass(frozen=True)
class Model:
    """How the model is loaded, as `Tracker.load` takes it."""

    bundle: Path | None
    backend: str
    threads: int
    require_signature: Path | None = None
    verify_files: bool = False
    allow_host_code: bool = False

    def load(self, manifest_sha256: str) -> Tracker:
        """Load the model.

        Args:
            manifest_sha256: Digest of the bundle's manifest.

        Raises:
            JobError: It cannot be loaded, or it is another bundle than on the machine that started
                the job.

        """
        try:
            tracker = Tracker.load(
                self.bundle,
                self.backend,
                threads=self.threads,
                require_signature=self.require_signature,
                verify_files=self.verify_files,
                allow_host_code=self.allow_host_code,
            )
        except VditrackError as error:
            raise JobError(str(error)) from error
        root = tracker.bundle.root
        if digest_manifest(root) != manifest_sha256:
            raise JobError(
                f"{root} on {socket.gethostname()} is another bundle than where the job was "
                "started, or changed meanwhile. Give all machines the same."
            )
        return tracker


def digest_manifest(root: Path) -> str:
    """Return the SHA-256 of the manifest of a bundle, which has the digests of all its files."""
    return hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()


class Annotated(msgspec.Struct, frozen=True):
    """A unit whose tracks are written."""

    record: Record
    seconds: float
    """Time that it took."""
    tracked: bool = True
    """False if the tracks were there, and only files of other formats were missing."""


@dataclass
class UnitHandler:
    """Runs the tasks of a worker: a `Source` is identified, a `Unit` annotated."""

    model: Model
    settings: Settings
    output: Path
    formats: tuple[FormatName, ...] = ()
    """Formats beside Parquet."""
    tracker: Tracker | None = None
    """Loaded with the first unit."""

    def __call__(self, task: Source | Unit, progress: Progress) -> Identity | Annotated:
        """Run a task.

        Raises:
            JobError: The model cannot be loaded, or the results cannot be written.
            VditrackError: The recording cannot be identified or annotated.

        """
        if isinstance(task, Source):
            return identify(task, progress)
        return self._convert(task, progress) or self._annotate(task, progress)

    def _convert(self, unit: Unit, progress: Progress) -> Annotated | None:
        """Write the formats that are missing of tracks that are there; None if there are none."""
        began = time.perf_counter()
        own = self.output / TRACKS / f"{unit.name}{SUFFIX}"
        # A recording that was renamed since has the same id. Listing a large folder takes long.
        search = self.formats and not own.exists()
        for path in sorted(own.parent.glob(f"*-{unit.id}{SUFFIX}")) if search else [own]:
            try:
                record = read_record(path)
            except InputError:
                # It is damaged, and is written again.
                continue
            self._write_formats(unit, path, progress)
            return Annotated(record, time.perf_counter() - began, tracked=False)
        return None

    def _annotate(self, unit: Unit, progress: Progress) -> Annotated:
        if self.tracker is None:
            cv2.setNumThreads(self.model.threads)
            self.tracker = self.model.load(self.settings.bundle_sha256)
            if self.settings.specification.masks:
                _check_masks(self.tracker)
            progress(0, None)
        began = time.perf_counter()
        annotation = annotate_unit(unit, self.settings.specification, self.tracker, progress)
        record = make_record(annotation, self.settings, self.tracker.backend.name)
        with _end_job(self.output):
            # The tracks come last: with them the unit is done.
            with staged_file(self.output / THUMBNAILS / f"{unit.name}.jpg") as scratch:
                scratch.write_bytes(annotation.thumbnail)
            if self.settings.specification.masks:
                place = self.output / MASKS / f"{unit.name}{SUFFIX}"
                write_masks(place, unit, record, self.tracker, progress)
            path = self.output / TRACKS / f"{unit.name}{SUFFIX}"
            write_tracks(path, annotation, record)
        self._write_formats(unit, path, progress)
        return Annotated(record, time.perf_counter() - began)

    def _write_formats(self, unit: Unit, tracks: Path, progress: Progress) -> None:
        """Write the files of a unit that are missing, from its file of tracks."""
        missing = list_missing(self.output, tracks.stem, self.formats)
        if not missing:
            return
        with _end_job(self.output):
            content = read_content(tracks, unit.source)
            for one in missing:
                path = locate_file(self.output, one, tracks.stem)
                write_format(path, one, content, progress)


def _check_masks(tracker: Tracker) -> None:
    """Check that a bundle propagates masks.

    Raises:
        JobError: It does not.

    """
    try:
        _ = tracker.propagation
    except InputError as error:
        raise JobError(str(error)) from error


@contextmanager
def _end_job(output: Path) -> Iterator[None]:
    """End the job if a result cannot be written, which is no fault of the recording."""
    try:
        yield
    except SourceError:
        raise
    except (OSError, InputError) as error:
        raise JobError(
            f"no result can be written in {output}: {error} Run the same command again when it "
            "can be written: what is done is kept."
        ) from error
