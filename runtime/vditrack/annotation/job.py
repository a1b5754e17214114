"""Runs a job: does what is missing, retries what fails, and writes what became of it all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from vditrack.annotation.failures import Failure
from vditrack.annotation.folders import Folder, LocalFolder
from vditrack.annotation.handling import Annotated, Model, UnitHandler
from vditrack.annotation.job_tables import (
    FAILED,
    RECORDINGS,
    Failed,
    FailedUnit,
    Recorded,
    describe_failure,
    write_failed,
    write_recordings,
)
from vditrack.annotation.recordings import Source
from vditrack.annotation.report import write_report
from vditrack.annotation.results import (
    REPORT,
    SUMMARY,
    Results,
    check_results_folder,
    open_results,
)
from vditrack.annotation.settings import TRACKS, FormatName, Settings
from vditrack.annotation.summary import Run, Summary, summarize, write_summary
from vditrack.annotation.track_tables import SUFFIX, Record
from vditrack.annotation.units import Identity, Unit, list_units
from vditrack.annotation.worker_pool import OpenHandler, Outcome
from vditrack.errors import InputError, VditrackError
from vditrack.input_checks.text import escape_surrogates

ShowProgress = Callable[[int, int | None], None]
"""Called with the units that are done or failed, and those that are known."""


class Pool(Protocol):
    """What runs the tasks, such as `vditrack.annotation.worker_pool.WorkerPool`."""

    workers: int
    replaced: int
    """Number of workers that ended or were killed, and were replaced."""

    def submit(self, task: Any, *, first: bool = False) -> None:  # noqa: ANN401
        """Add a task behind those that wait, or before them."""

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the outcome of each task until none is left; tasks may be added meanwhile."""
        ...

    def close(self) -> None:
        """End the workers; calling it again does nothing."""


@dataclass(frozen=True)
class Job:
    """What to annotate, how, and where to."""

    sources: Sequence[Source]
    output: Folder
    model: Model
    settings: Settings
    open_pool: Callable[[OpenHandler], Pool]
    """Starts the engine."""
    retries: int
    """How often a unit is tried again after a failure."""
    retry_failed: bool = False
    """Whether units that failed in an earlier run are tried again."""
    formats: tuple[FormatName, ...] = ()
    """Formats that are written beside Parquet."""


def run_job(job: Job, show: ShowProgress) -> Summary:
    """Annotate all recordings that are not done yet, and return the summary.

    Failures of recordings end up in the results. If the job is interrupted, what is done stays, and
    the tables and the summary say so.

    Raises:
        InputError: The folder of the results cannot be used, or a package is missing.
        VditrackError: The model cannot be loaded.

    """
    _refuse_own_folder(job)
    check_results_folder(job.output, job.settings)
    handler = UnitHandler(job.model, job.settings, job.output, job.formats)
    with (
        closing(job.open_pool(partial(_return, handler))) as pool,
        open_results(job.output, job.settings) as results,
    ):
        progress = _Progress(job, results, pool)
        complete = False
        try:
            progress.begin()
            for outcome in pool.outcomes():
                progress.take(outcome)
                show(progress.finished, progress.known)
            complete = True
        finally:
            pool.close()
            results.remove_scratch()
            # The error that ended the job is the one to report, such as of a full disk.
            ignored = () if complete else (InputError, OSError)
            with suppress(*ignored):
                results.save_identities()
            with suppress(*ignored):
                summary = progress.write(complete=complete)
    return summary


def _refuse_own_folder(job: Job) -> None:
    """Refuse a recording as the folder of the results, which would become part of it."""
    if any(_is_folder(source, job.output) for source in job.sources):
        raise InputError(
            f"{job.output} is a folder of images or a bag, and the results would become "
            "part of it. Choose another folder with -o."
        )


def _is_folder(source: Source, folder: Folder) -> bool:
    """Return whether a recording is a folder for results."""
    if source.remote is not None or not isinstance(folder, LocalFolder):
        return source.place == str(folder)
    try:
        return source.path.samefile(folder.path)
    except OSError:
        # One of them is not there.
        return False


def _return(handler: UnitHandler) -> UnitHandler:
    return handler


class _Progress:
    """What became of each recording so far."""

    def __init__(self, job: Job, results: Results, pool: Pool) -> None:
        self._job, self._results, self._pool = job, results, pool
        self._began = time.perf_counter()
        self._places = {source: place for place, source in enumerate(job.sources)}
        self._units: list[tuple[int, Unit]] = []
        """All units that are known, with the place of their source in the list."""
        self._copies: Counter[str] = Counter()
        """Number of units by id: recordings may have the same content."""
        self._records: dict[str, Record] = {}
        """Of the units whose tracks are there, by id; files of other formats may be missing."""
        self._ended: set[str] = set()
        """Ids of the units that are done, with all formats, or failed."""
        self._failures: dict[str, Failed] = {}
        self._unidentified: dict[Source, Failed] = {}
        self._attempts: Counter[Source | Unit] = Counter()
        self._earlier = results.read_failed()
        self._earlier_units = {one.id: one for one in self._earlier if one.id is not None}
        self._reached: set[tuple[str, str | None, float, float | None, int | None]] = set()
        """Recordings that were identified, or could not be: path, topic, start, end and episode."""
        self._new: list[Annotated] = []
        self._open_sources = 0

    @property
    def finished(self) -> int:
        """Number of units that are done or failed."""
        return sum(self._copies[id_] for id_ in self._ended) + len(self._unidentified)

    @property
    def known(self) -> int:
        """Number of units that are known, with one for each source that is not identified yet."""
        return len(self._units) + len(self._unidentified) + self._open_sources

    def begin(self) -> None:
        """Find what is done, and give the rest to the workers."""
        for source in self._job.sources:
            identity = self._results.find_identity(source)
            if identity is None:
                self._open_sources += 1
                self._pool.submit(source)
            else:
                self._add_units(source, identity)

    def take(self, outcome: Outcome) -> None:
        """Take the end of a task."""
        task: Source | Unit = outcome.task
        if outcome.failure is not None:
            self._take_failure(task, outcome.failure)
        elif isinstance(task, Source):
            self._open_sources -= 1
            self._results.keep_identity(task, outcome.result)
            # The worker has just read the recording, and may be the one that goes on with it.
            self._add_units(task, outcome.result, first=True)
        else:
            # A worker may have been lost when the tracks were written, before it said so.
            if outcome.result.tracked or task.id not in self._results.files:
                self._check_written(task)
                self._new.append(outcome.result)
                self._results.add_file(task)
            self._records[task.id] = outcome.result.record
            self._ended.add(task.id)

    def write(self, *, complete: bool) -> Summary:
        """Write the tables, the summary and the report; return the summary."""
        self._find_tracks()
        folder, recordings = self._results.folder, self._list_recordings()
        failures = self._list_failures()
        self._write_failed(failures)
        others = self._results.list_others(self._copies)
        with folder.open_new(RECORDINGS) as path:
            write_recordings(path, [*recordings, *others])
        run = Run(
            complete=complete,
            sources=len(self._job.sources),
            recordings=self.known,
            unfinished=self.known - self.finished,
            workers=self._pool.workers,
            workers_replaced=self._pool.replaced,
            annotated=self._new,
            seconds=time.perf_counter() - self._began,
        )
        summary = summarize(self._job.settings, recordings, failures, run)
        with folder.open_new(SUMMARY) as path:
            write_summary(path, summary)
        with folder.open_new(REPORT) as path:
            write_report(path, summary, recordings, failures, self._results.read_thumbnail)
        return summary

    def _write_failed(self, failures: Sequence[FailedUnit]) -> None:
        with self._results.folder.open_new(FAILED) as path:
            write_failed(path, [*failures, *self._list_unreached()])

    def _add_units(self, source: Source, identity: Identity, *, first: bool = False) -> None:
        """Give the units of a source to the workers, but those that are done or failed before."""
        self._reach(source)
        new: list[Unit] = []
        for unit in list_units(source, identity, self._job.settings):
            self._units.append((self._places[source], unit))
            self._copies[unit.id] += 1
            if self._copies[unit.id] > 1:
                continue
            missing = self._take_tracks(unit.id)
            failed = None if self._job.retry_failed else self._find_failed(unit.id, missing)
            if failed is not None:
                self._failures[unit.id] = failed
            elif missing is None or missing:
                new.append(unit)
                continue
            self._ended.add(unit.id)
        for unit in reversed(new) if first else new:
            self._pool.submit(unit, first=first)

    def _take_tracks(self, unit_id: str) -> tuple[FormatName, ...] | None:
        """Take the tracks of a unit; return the formats that are missing, None without tracks."""
        record = self._results.find_record(unit_id)
        if record is None:
            return None
        self._records[unit_id] = record
        return tuple(self._results.list_missing(unit_id, self._job.formats))

    def _find_failed(self, unit_id: str, missing: tuple[FormatName, ...] | None) -> Failed | None:
        """Return the failure of an earlier run in what is missing of a unit; None without one."""
        earlier = self._earlier_units.get(unit_id)
        if earlier is None or missing == ():
            return None
        tracked = bool(earlier.formats)
        if tracked != (missing is not None) or not set(missing or ()) <= set(earlier.formats):
            return None
        return Failed(Failure(earlier.kind, earlier.reason), earlier.attempts, earlier.formats)

    def _find_tracks(self) -> None:
        """Take tracks that were written, though a format failed or the run was interrupted."""
        others = self._copies.keys() - self._records.keys()
        if others:
            self._results.find_files()
            for unit_id in others:
                self._take_tracks(unit_id)

    def _check_written(self, unit: Unit) -> None:
        """Check that a result of another machine is in the folder of this one.

        Raises:
            VditrackError: It is not.

        """
        folder, name = self._results.folder, self._name_tracks(unit)
        if not folder.exists(name):
            raise VditrackError(
                f"{folder.locate(name)} was written by a worker, and is not there: on another "
                "machine, that is another folder. Give a folder with -o that all machines of the "
                "cluster share."
            )

    def _name_tracks(self, unit: Unit) -> str:
        return f"{TRACKS}/{unit.name}{SUFFIX}"

    def _take_failure(self, task: Source | Unit, failure: Failure) -> None:
        """Submit a task that failed again, or quarantine it after the last attempt."""
        self._attempts[task] += 1
        attempts = self._attempts[task]
        if attempts <= self._job.retries:
            self._pool.submit(task)
            return
        if isinstance(task, Source):
            self._open_sources -= 1
            self._reach(task)
            self._unidentified[task] = Failed(failure, attempts, ())
        else:
            if self._results.folder.exists(self._name_tracks(task)):
                self._results.add_file(task)
            missing = self._take_tracks(task.id) or ()
            self._failures[task.id] = Failed(failure, attempts, missing)
            self._ended.add(task.id)
        # Kept, whatever happens to this process.
        self._write_failed(self._list_failures())

    def _list_recordings(self) -> list[Recorded]:
        return [
            Recorded(unit.source, self._results.files[unit.id], self._records[unit.id])
            for unit in self._list_units()
            if unit.id in self._records
        ]

    def _list_failures(self) -> list[FailedUnit]:
        """Return the failures in the order of the sources."""
        rows = [
            (place, describe_failure(unit.source, unit.id, self._failures[unit.id]))
            for place, unit in self._units
            if unit.id in self._failures
        ]
        rows += [
            (self._places[source], describe_failure(source, None, failed))
            for source, failed in self._unidentified.items()
        ]
        return [row for _, row in sorted(rows, key=lambda item: (item[0], item[1].topic or ""))]

    def _list_unreached(self) -> list[FailedUnit]:
        """Return failures of earlier runs whose recordings are not listed, or not reached yet."""
        return [
            one
            for one in self._earlier
            if one.id not in self._copies
            # A bag that is listed without a topic is listed with all.
            and (one.source, one.topic, one.start, one.end, one.episode) not in self._reached
            and (one.source, None, one.start, one.end, one.episode) not in self._reached
        ]

    def _reach(self, source: Source) -> None:
        place = escape_surrogates(source.place)
        self._reached.add((place, source.topic, source.start, source.end, source.episode))

    def _list_units(self) -> list[Unit]:
        """Return the units in the order of the sources."""
        by_place = sorted(self._units, key=lambda item: (item[0], item[1].source.topic or ""))
        return [unit for _, unit in by_place]
