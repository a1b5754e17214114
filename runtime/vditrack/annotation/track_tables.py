"""Tracks in Parquet: a row for each frame and point.

The rows are sorted by frame, then by point. They are complete, N rows for each of T frames, unless
points live for different parts of the recording. So flat columns suit SQL and data frames, and a
column reshaped to [T, N] is the array for training.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotation.annotate import Annotation, Measures
from vditrack.annotation.failures import SourceError
from vditrack.annotation.settings import Settings
from vditrack.annotation.specification import Specification
from vditrack.arrays import Floats, Ints
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.inference.host_memory import available_bytes
from vditrack.input_checks.files import MalformedError, decode_json
from vditrack.input_checks.text import escape_surrogates
from vditrack.io.clip import Gap
from vditrack.io.parquet import import_pyarrow
from vditrack.io.track_files import SavedTracks
from vditrack.points.ragged_tracks import RaggedTracks, list_row_values, list_rows

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
SCHEMA_VERSION = 1
_RECORD, _QUERIES = b"vditrack", b"vditrack.queries"
_TIMES, _STAMPS = b"vditrack.times", b"vditrack.stamps"
"""Keys of the file's metadata."""
_GROUP_ROWS = 1 << 17
"""Rows in a row group, at most, unless one frame has more."""
_ENTRY_BYTES = 17
"""Bytes of a point in a frame, as `Tracks` has it."""
_XYZ = ("x3d", "y3d", "z3d")
_READ = ("frame", "point", "x", "y", "visible", "confidence", "forward_backward_error")
_EPISODE = ("episode_index", "frame_index")
"""Columns by which LeRobot names a frame."""
_PACKAGES = ("vditrack", "numpy", "opencv-python-headless", "av", "onnxruntime", "pyarrow")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of tracks says of itself; JSON in its metadata, under the key ``vditrack``."""

    schema_version: int = SCHEMA_VERSION
    id: str
    """Id of the unit."""
    source: str
    """Path or address of the recording as it was given; bytes that are no UTF-8 are escaped."""
    source_sha256: str
    topic: str | None
    """Image topic of a bag, or camera of a LeRobot data set."""
    episode: int | None = None
    """Episode of a LeRobot data set."""
    start: float
    """Start of the range, in seconds after the first frame."""
    end: float | None
    bundle_sha256: str
    backend: str
    """Backend that ran the model."""
    specification: Specification
    versions: dict[str, str]
    """Versions of packages that decide about the result."""
    frames: int
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    seconds: float
    """Time from the first frame to the last."""
    gaps: tuple[Gap, ...]
    """Where frames are missing."""
    remarks: tuple[str, ...]
    measures: Measures


def make_record(annotation: Annotation, settings: Settings, backend: str) -> Record:
    """Return what the file of an annotation says of itself.

    Args:
        annotation: The annotation.
        settings: Settings of the job.
        backend: Name of the backend that ran the model.

    """
    unit, times = annotation.unit, annotation.times
    height, width = annotation.size
    return Record(
        id=unit.id,
        source=escape_surrogates(unit.source.place),
        source_sha256=unit.identity.sha256,
        topic=unit.source.topic,
        episode=unit.source.episode,
        start=unit.source.start,
        end=unit.source.end,
        bundle_sha256=settings.bundle_sha256,
        backend=backend,
        specification=settings.specification,
        versions=_read_versions(),
        frames=len(times),
        width=width,
        height=height,
        seconds=round(float(times[-1] - times[0]), 6),
        gaps=annotation.gaps,
        remarks=tuple(map(escape_surrogates, annotation.remarks)),
        measures=annotation.measures,
    )


def write_tracks(path: Path, annotation: Annotation, record: Record) -> None:
    """Write tracks; the file appears when it is complete.

    Args:
        path: Destination.
        annotation: The tracks.
        record: What the file says of itself.

    """
    pa, parquet = import_pyarrow()
    schema = _make_schema(pa, annotation)
    content = {
        _RECORD: msgspec.json.encode(record),
        _QUERIES: msgspec.json.encode(_list_queries(annotation, record)),
        # A frame may have no row.
        _TIMES: msgspec.json.encode(annotation.times.tolist()),
    }
    if annotation.stamps is not None:
        content[_STAMPS] = msgspec.json.encode(annotation.stamps.tolist())
    schema = schema.with_metadata(content)
    with (
        staged_file(path) as scratch,
        parquet.ParquetWriter(scratch, schema, compression="zstd") as writer,
    ):
        for rows, positions in _cut_rows(annotation, record):
            columns = _make_columns(pa, annotation, rows, positions)
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(rows.ids) or 1)


def read_record(path: Path, content: BinaryIO | None = None) -> Record:
    """Return what a file of tracks says of itself.

    Args:
        path: The file.
        content: What it holds, at least its end; read from the path by default.

    Raises:
        InputError: There is no such file, it is damaged, or `write_tracks` has not written it.

    """
    pa, parquet = import_pyarrow()
    try:
        metadata = parquet.read_metadata(path if content is None else content).metadata or {}
        return decode_json(metadata.get(_RECORD, b""), Record)
    except (OSError, pa.ArrowException, MalformedError) as error:
        raise InputError(
            f"{path} is not a file of tracks that `vditrack annotate` has written: {error}."
        ) from error


def read_tracks(path: Path) -> tuple[SavedTracks, Record]:
    """Return the tracks in a file, in pixels and without empty points, and what it says of itself.

    Raises:
        InputError: There is no such file, it is damaged, or `write_tracks` has not written it.

    """
    record = read_record(path)
    pa, parquet = import_pyarrow()
    try:
        content = parquet.read_table(path)
        queries = decode_json(content.schema.metadata[_QUERIES], list[list[float | None]])
        times = np.array(decode_json(content.schema.metadata[_TIMES], list[float]))
        columns = {name: content[name].to_numpy() for name in _READ}
        rows = _read_rows(columns, queries, record)
        _check_memory(path, record)
        tracks = rows.fill_rectangle(0, record.frames)
    except (OSError, KeyError, IndexError, ValueError, pa.ArrowException) as error:
        raise _explain_damage(path, error) from error
    return SavedTracks(tracks, times, Path(record.source)), record


def _check_memory(path: Path, record: Record) -> None:
    """Check that all points of a file in all of its frames fit into memory.

    Raises:
        SourceError: They do not.

    """
    count, frames = record.measures.points, record.frames
    if _ENTRY_BYTES * count * frames > available_bytes():
        raise SourceError(
            "memory",
            f"{path} has {count} points in {frames} frames, which do not fit into memory together. "
            "Read it in parts, as with pyarrow.parquet.ParquetFile, or give --pad-to.",
        )


def _read_rows(
    columns: dict[str, NDArray[Any]], queries: list[list[float | None]], record: Record
) -> RaggedTracks:
    """Return the rows of a file's columns, in pixels and without those of empty points.

    Raises:
        ValueError: They are of no such file.

    """
    count = record.measures.points
    scale = np.asarray(1 / _find_scale(record), np.float32)
    filled = columns["point"] < count
    x, y, distance = (
        columns[name][filled].astype(np.float32) for name in ("x", "y", "forward_backward_error")
    )
    return RaggedTracks(
        queries=np.array(queries[:count], np.float32).reshape(-1, 3)
        * np.append(np.float32(1), scale),
        frames=columns["frame"][filled],
        ids=columns["point"][filled],
        points=np.asarray(np.stack([x, y], axis=-1) * scale, np.float32),
        visible=columns["visible"][filled].astype(np.bool_),
        confidence=columns["confidence"][filled].astype(np.float32),
        forward_backward_error=np.nan_to_num(distance, nan=np.inf),
    )


def read_stamps(path: Path) -> Ints | None:
    """Return the stamps of the frames in a file of tracks.

    Returns:
        int64 [T] nanoseconds; None if the recording is no bag.

    Raises:
        InputError: The file is damaged.

    """
    pa, parquet = import_pyarrow()
    try:
        content = parquet.read_metadata(path).metadata or {}
        stamps = content.get(_STAMPS)
        return None if stamps is None else np.array(decode_json(stamps, list[int]), np.int64)
    except (OSError, MalformedError, pa.ArrowException) as error:
        raise _explain_damage(path, error) from error


def _explain_damage(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged: {error}. Annotate the recording again.")


def _make_schema(pa: Any, annotation: Annotation) -> pyarrow.Schema:  # noqa: ANN401
    episode = annotation.unit.source.episode
    fields = [
        *(pa.field(name, pa.int64(), nullable=False) for name in _EPISODE if episode is not None),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        *([pa.field("stamp", pa.int64(), nullable=False)] if annotation.stamps is not None else []),
        pa.field("point", pa.int32(), nullable=False),
        *([pa.field("object", pa.uint8())] if annotation.objects is not None else []),
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("visible", pa.bool_(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("forward_backward_error", pa.float32()),
        *(pa.field(name, pa.float32()) for name in _XYZ if annotation.positions is not None),
    ]
    return pa.schema(fields)


def _make_columns(
    pa: Any,  # noqa: ANN401
    annotation: Annotation,
    rows: RaggedTracks,
    positions: Floats | None,
) -> dict[str, Any]:
    """Return the columns of some rows, by name."""
    stamps, episode = annotation.stamps, annotation.unit.source.episode
    keys = {"episode_index": np.full(len(rows.frames), episode), "frame_index": rows.frames}
    objects = annotation.objects

    def known(values: Floats) -> Any:  # noqa: ANN401
        return pa.array(values, pa.float32(), mask=~np.isfinite(values))

    def list_objects(objects: NDArray[np.uint8]) -> Any:  # noqa: ANN401
        missing = rows.ids >= len(objects)
        return pa.array(
            np.append(objects, np.uint8(0))[np.where(missing, -1, rows.ids)], mask=missing
        )

    return {
        **({} if episode is None else keys),
        "frame": rows.frames,
        "time": annotation.times[rows.frames],
        **({} if stamps is None else {"stamp": stamps[rows.frames]}),
        "point": rows.ids,
        **({} if objects is None else {"object": list_objects(objects)}),
        "x": known(rows.points[:, 0]),
        "y": known(rows.points[:, 1]),
        "visible": rows.visible,
        "confidence": rows.confidence,
        "forward_backward_error": known(rows.forward_backward_error),
        **({} if positions is None else dict(zip(_XYZ, map(known, positions.T), strict=True))),
    }


def _cut_rows(
    annotation: Annotation, record: Record
) -> Iterator[tuple[RaggedTracks, Floats | None]]:
    """Yield the rows of stretches of time, in the units and with the points that the file has.

    With them come their positions in metres [R, 3], if there are some.
    """
    positions = annotation.positions
    tracks, frames = annotation.tracks, len(annotation.times)
    if isinstance(tracks, RaggedTracks):
        most = int(np.bincount(tracks.frames, minlength=1).max())
    else:
        missing = max(0, (record.specification.pad_to or 0) - len(tracks.visible))
        most = len(tracks.visible) + missing
    scale = _find_scale(record)
    step = max(1, _GROUP_ROWS // max(most, 1))
    for first in range(0, frames, step):
        end = min(first + step, frames)
        if isinstance(tracks, RaggedTracks):
            rows = tracks.cut(first, end)
            begin = int(np.searchsorted(tracks.frames, first))
            xyz = None if positions is None else positions[begin : begin + len(rows.ids)]
        else:
            rows = list_rows(tracks, first, end, missing)
            xyz = None if positions is None else positions[:, first:end]
            xyz = None if xyz is None else list_row_values(xyz, missing, np.nan)
        yield replace(rows, points=rows.points * scale), xyz


def _find_scale(record: Record) -> Floats:
    """Return the factors (x, y) from pixels to the units of the file."""
    if record.specification.coordinates == "pixels":
        return np.ones(2, np.float32)
    return np.array([1 / record.width, 1 / record.height], np.float32)


def _list_queries(annotation: Annotation, record: Record) -> list[list[float]]:
    """Return the queries (t, x, y) of the points of a file; those of missing ones are NaN."""
    queries = annotation.tracks.queries * np.append(np.float32(1), _find_scale(record))
    missing = max(0, (record.specification.pad_to or 0) - len(queries))
    padded: list[list[float]] = np.pad(
        queries, ((0, missing), (0, 0)), constant_values=np.nan
    ).tolist()
    return padded


def _read_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Of onnxruntime there are several packages.
            continue
    return versions
