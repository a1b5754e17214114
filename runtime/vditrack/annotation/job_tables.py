"""Tables of a job: its recordings, and those that failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from vditrack.annotation.failures import Failure, FailureKind
from vditrack.annotation.recordings import Source, make_source
from vditrack.annotation.settings import TRACKS, FormatName
from vditrack.annotation.track_tables import SUFFIX, Record
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.input_checks.text import escape_surrogates
from vditrack.io.parquet import import_pyarrow

RECORDINGS, FAILED = "recordings.parquet", "failed.parquet"


class FailedUnit(msgspec.Struct, frozen=True):
    """A recording that is not tried again, and why."""

    id: str | None
    """Id of the unit; None if the recording could not be identified."""
    source: str
    """Path or address as it was given; bytes that are no UTF-8 are escaped."""
    topic: str | None
    episode: int | None
    start: float
    end: float | None
    kind: FailureKind
    reason: str
    attempts: int
    """How often it was tried."""
    formats: tuple[FormatName, ...]
    """Formats that are missing, if the tracks are there; empty if they are not."""


class Failed(NamedTuple):
    """A failure that is final."""

    failure: Failure
    attempts: int
    """How often it was tried."""
    formats: tuple[FormatName, ...]
    """As `FailedUnit` has them."""


class Recorded(NamedTuple):
    """A recording whose tracks are done."""

    source: Source
    name: str
    """Name of the files of its results, without their suffix."""
    record: Record
    """Of the first recording with this content."""


def describe_failure(source: Source, unit_id: str | None, failed: Failed) -> FailedUnit:
    """Return the row of a failure."""
    (kind, reason), attempts, formats = failed
    return FailedUnit(
        id=unit_id,
        source=escape_surrogates(source.place),
        topic=source.topic,
        episode=source.episode,
        start=source.start,
        end=source.end,
        kind=kind,
        reason=escape_surrogates(reason),
        attempts=attempts,
        formats=formats,
    )


def write_failed(path: Path, failed: Sequence[FailedUnit]) -> None:
    """Write the table of failures."""
    pa, _ = import_pyarrow()
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("topic", pa.string()),
            ("episode", pa.int64()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("kind", pa.string()),
            ("reason", pa.string()),
            ("attempts", pa.int32()),
            ("formats", pa.list_(pa.string())),
        ]
    )
    _write(path, schema, [msgspec.structs.asdict(one) for one in failed])


def read_failed(path: Path, shown: str | None = None) -> list[FailedUnit]:
    """Read a table of failures.

    Args:
        path: The file.
        shown: Where it is, for messages; its path by default.

    Raises:
        InputError: The file is damaged or has other columns.

    """
    pa, parquet = import_pyarrow()
    try:
        return msgspec.convert(parquet.read_table(path).to_pylist(), list[FailedUnit])
    except (OSError, pa.ArrowException, msgspec.ValidationError) as error:
        place = shown or path
        raise InputError(f"{place} is not a table of failures: {error}. Remove it.") from error


class _Row(msgspec.Struct):
    """Columns that say which recording a row is of."""

    id: str
    source: str
    topic: str | None
    episode: int | None
    start: float
    end: float | None


def read_recordings(path: Path) -> list[tuple[str, Source]]:
    """Return the ids and the recordings of a table; none if it is damaged or does not exist."""
    pa, parquet = import_pyarrow()
    try:
        content = parquet.read_table(path, columns=list(_Row.__struct_fields__)).to_pylist()
        rows = msgspec.convert(content, list[_Row])
    except (OSError, pa.ArrowException, msgspec.ValidationError):
        return []
    return [
        (row.id, make_source(row.source, row.topic, row.start, row.end, row.episode))
        for row in rows
    ]


def write_recordings(path: Path, recordings: Sequence[Recorded]) -> None:
    """Write the table of the recordings whose tracks are done."""
    pa, _ = import_pyarrow()
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("topic", pa.string()),
            ("episode", pa.int64()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("file", pa.string()),
            ("frames", pa.int64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("seconds", pa.float64()),
            ("points", pa.int32()),
            ("visible_share", pa.float64()),
            ("confidence", pa.float64()),
            ("missing_frames", pa.int64()),
            ("remarks", pa.list_(pa.string())),
        ]
    )
    _write(path, schema, list(map(_make_row, recordings)))


def _make_row(recording: Recorded) -> dict[str, Any]:
    source, name, record = recording
    measures = record.measures
    return {
        "id": record.id,
        "source": escape_surrogates(source.place),
        "topic": source.topic,
        "episode": source.episode,
        "start": source.start,
        "end": source.end,
        "file": f"{TRACKS}/{name}{SUFFIX}",
        "frames": record.frames,
        "width": record.width,
        "height": record.height,
        "seconds": record.seconds,
        "points": measures.points,
        "visible_share": measures.visible_share,
        "confidence": measures.confidence,
        "missing_frames": sum(gap.frames for gap in record.gaps),
        "remarks": list(record.remarks),
    }


def _write(path: Path, schema: Any, rows: list[dict[str, Any]]) -> None:  # noqa: ANN401
    pa, parquet = import_pyarrow()
    with staged_file(path) as scratch:
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), scratch, compression="zstd")
