"""The summary of a job: what is done, what failed, and how fast it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vditrack.annotation.annotate import LIFE_BINS, LIFE_SECONDS
from vditrack.annotation.handling import Annotated
from vditrack.annotation.job_tables import FailedUnit, Recorded
from vditrack.annotation.settings import Settings
from vditrack.atomic_files import staged_file


@dataclass(frozen=True)
class Run:
    """What happened in one run of a job."""

    complete: bool
    """False if it was interrupted."""
    sources: int
    recordings: int
    """Units that are known."""
    unfinished: int
    """Units that neither are done, with all formats, nor failed."""
    workers: int
    workers_replaced: int
    annotated: Sequence[Annotated]
    """Units that were annotated in this run."""
    seconds: float


class Throughput(msgspec.Struct, frozen=True):
    """How fast this run was."""

    seconds: float
    """Time of the run."""
    workers: int
    workers_replaced: int
    """Workers that ended or were killed."""
    annotated: int
    """Recordings that were annotated in this run."""
    recordings_per_hour: float
    frames_per_second: float
    """Of all workers together."""
    video_seconds_per_second: float
    """Seconds of recordings that are annotated in a second."""


class Summary(msgspec.Struct, frozen=True):
    """The summary of a job, which is written as JSON."""

    complete: bool
    """False if the run was interrupted."""
    settings: Settings
    sources: int
    """Paths and ranges that were listed."""
    recordings: int
    """Recordings, topics and ranges that are known."""
    done: int
    """Recordings whose tracks are written."""
    failed: int
    """Recordings that failed. If just a format of one failed, its tracks count as done, too."""
    unfinished: int
    """Recordings that were not reached, or of which just a format was not."""
    failures: dict[str, int]
    """Number of failures by kind."""
    frames: int
    video_seconds: float
    points: int
    visible_share: float | None
    """Mean share of positions that are visible."""
    missing_frames: int
    life: tuple[int, ...]
    """Histogram of the points by the share of frames in which they are visible, in equal bins."""
    life_seconds: tuple[int, ...]
    """Histogram of the points by the time for which they are visible; the bins are divided at 0.5,
    1, 2, 5, 10, 30, 60 and 300 seconds."""
    throughput: Throughput


def summarize(
    settings: Settings, recordings: Sequence[Recorded], failed: Sequence[FailedUnit], run: Run
) -> Summary:
    """Return the summary of a job.

    Args:
        settings: Settings of the job.
        recordings: Recordings whose tracks are done.
        failed: Failures.
        run: What happened in this run.

    """
    records = [recording.record for recording in recordings]
    measures = [record.measures for record in records]
    shares = [one.visible_share for one in measures if one.visible_share is not None]
    return Summary(
        complete=run.complete,
        settings=settings,
        sources=run.sources,
        recordings=run.recordings,
        done=len(records),
        failed=len(failed),
        unfinished=run.unfinished,
        failures=dict(sorted(Counter(one.kind for one in failed).items())),
        frames=sum(record.frames for record in records),
        video_seconds=round(sum(record.seconds for record in records), 3),
        points=sum(one.points for one in measures),
        visible_share=round(sum(shares) / len(shares), 4) if shares else None,
        missing_frames=sum(gap.frames for record in records for gap in record.gaps),
        life=_add([one.life for one in measures], LIFE_BINS),
        life_seconds=_add([one.life_seconds for one in measures], len(LIFE_SECONDS) + 1),
        throughput=_measure_throughput(run),
    )


def write_summary(path: Path, summary: Summary) -> None:
    """Write a summary as JSON."""
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    with staged_file(path) as scratch:
        scratch.write_bytes(text + b"\n")


def count_things(number: float, thing: str) -> str:
    """Return a number of things in words, such as "1 worker" and "2 workers"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _add(histograms: Sequence[tuple[int, ...]], bins: int) -> tuple[int, ...]:
    return tuple(map(sum, zip((0,) * bins, *histograms, strict=True)))


def _measure_throughput(run: Run) -> Throughput:
    records, seconds = [one.record for one in run.annotated], max(run.seconds, 1e-9)
    return Throughput(
        seconds=round(run.seconds, 2),
        workers=run.workers,
        workers_replaced=run.workers_replaced,
        annotated=len(records),
        recordings_per_hour=round(3600 * len(records) / seconds, 1),
        frames_per_second=round(sum(record.frames for record in records) / seconds, 2),
        video_seconds_per_second=round(sum(record.seconds for record in records) / seconds, 3),
    )
