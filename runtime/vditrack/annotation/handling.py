"""What a worker does: identifies recordings, and writes the tracks of units."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import msgspec

from vditrack.annotation.annotate import Progress, annotate_unit
from vditrack.annotation.copies import Copies
from vditrack.annotation.failures import JobError, SourceError
from vditrack.annotation.folders import Folder
from vditrack.annotation.formats.content import read_content
from vditrack.annotation.formats.selection import (
    list_missing,
    locate_file,
    needs_frames,
    write_format,
)
from vditrack.annotation.object_masks import write_masks
from vditrack.annotation.recordings import Source
from vditrack.annotation.settings import MASKS, THUMBNAILS, TRACKS, FormatName, Settings
from vditrack.annotation.storage import AccessError, NetworkError
from vditrack.annotation.track_tables import SUFFIX, Record, make_record, write_tracks
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


class UnitHandler:
    """Runs the tasks of a worker: a `Source` is identified, a `Unit` annotated."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        output: Folder,
        formats: tuple[FormatName, ...] = (),
    ) -> None:
        """Load nothing yet.

        Args:
            model: How the model is loaded, with the first unit.
            settings: Settings of the job.
            output: Folder of the results.
            formats: Formats beside Parquet.

        """
        self._model, self._settings, self._output = model, settings, output
        self._formats = formats
        self._tracker: Tracker | None = None
        self._copies = Copies(settings.specification.mask)

    def __call__(self, task: Source | Unit, progress: Progress) -> Identity | Annotated:
        """Run a task.

        Raises:
            JobError: The model cannot be loaded, the results cannot be written, or a storage cannot
                be used.
            VditrackError: The recording cannot be identified or annotated.

        """
        try:
            if isinstance(task, Source):
                return self._identify(task, progress)
            return self._convert(task, progress) or self._annotate(task, progress)
        except AccessError as error:
            raise JobError(str(error)) from error

    def _identify(self, source: Source, progress: Progress) -> Identity:
        with self._copies.hold(source, "", progress) as (copy, version):
            identity = identify(copy, progress)
        return (
            identity if source.remote is None else msgspec.structs.replace(identity, status=version)
        )

    def _convert(self, unit: Unit, progress: Progress) -> Annotated | None:
        """Write the formats that are missing of tracks that are there; None if there are none."""
        began = time.perf_counter()
        names = [unit.name + SUFFIX]
        # A recording that was renamed since has the same id. Listing a large folder takes long.
        if self._formats and not self._output.exists(f"{TRACKS}/{names[0]}"):
            listed = self._output.list_names(TRACKS)
            names = [name for name in listed if name.endswith(f"-{unit.id}{SUFFIX}")]
        for name in names:
            try:
                record = self._output.read_record(f"{TRACKS}/{name}")
            except NetworkError:
                raise
            except InputError:
                # It is damaged, and is written again.
                continue
            self._write_formats(unit, Path(name).stem, progress)
            return Annotated(record, time.perf_counter() - began, tracked=False)
        return None

    def _annotate(self, unit: Unit, progress: Progress) -> Annotated:
        if self._tracker is None:
            cv2.setNumThreads(self._model.threads)
            self._tracker = self._model.load(self._settings.bundle_sha256)
            if self._settings.specification.masks:
                _check_masks(self._tracker)
            progress(0, None)
        began = time.perf_counter()
        with self._copies.hold(unit.source, unit.identity.status, progress) as (source, _):
            copy = replace(unit, source=source)
            record = self._track(copy, self._tracker, progress)
            self._write_formats(copy, unit.name, progress)
        return Annotated(record, time.perf_counter() - began)

    def _track(self, unit: Unit, tracker: Tracker, progress: Progress) -> Record:
        """Track a unit whose recording is on this machine, and write its results."""
        annotation = annotate_unit(unit, self._settings.specification, tracker, progress)
        remarks = tuple(map(self._copies.name_addresses, annotation.remarks))
        annotation = replace(annotation, remarks=remarks)
        record = make_record(annotation, self._settings, tracker.backend.name)
        with _end_job(self._output):
            # The tracks come last: with them the unit is done.
            with (
                self._output.open_new(f"{THUMBNAILS}/{unit.name}.jpg") as path,
                staged_file(path) as scratch,
            ):
                scratch.write_bytes(annotation.thumbnail)
            if self._settings.specification.masks:
                with self._output.open_new(f"{MASKS}/{unit.name}{SUFFIX}") as path:
                    write_masks(path, unit, record, tracker, progress)
            with self._output.open_new(f"{TRACKS}/{unit.name}{SUFFIX}") as path:
                write_tracks(path, annotation, record)
        return record

    def _write_formats(self, unit: Unit, name: str, progress: Progress) -> None:
        """Write the files of a unit that are missing, from its file of tracks.

        Args:
            unit: The unit.
            name: Name of the file of tracks, without its suffix.
            progress: Called with the steps done and the steps in all.

        """
        missing = list_missing(self._output, name, self._formats)
        if not missing:
            return
        with _end_job(self._output), self._output.open_copy(f"{TRACKS}/{name}{SUFFIX}") as tracks:
            content = read_content(tracks, unit.source)
            for one in missing:
                with ExitStack() as stack:
                    if needs_frames(one):
                        held = self._copies.hold(unit.source, unit.identity.status, progress)
                        content = replace(content, source=stack.enter_context(held).source)
                    path = stack.enter_context(self._output.open_new(locate_file(one, name)))
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
def _end_job(output: Folder) -> Iterator[None]:
    """End the job if a result cannot be written, which is no fault of the recording."""
    try:
        yield
    except (SourceError, AccessError):
        raise
    except (OSError, InputError) as error:
        raise JobError(
            f"no result can be written in {output}: {error} Run the same command again when it "
            "can be written: what is done is kept."
        ) from error
