"""Tracks in Parquet: a row for each frame and point.

The rows are sorted by frame, then by point, and complete: N rows for each of T frames. So flat
columns suit SQL and data frames, and a column reshaped to [T, N] is the array for training.
"""

from __future__ import annotations

import platform
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotation.annotate import Annotation, Measures
from vditrack.annotation.settings import Settings
from vditrack.annotation.specification import Specification
from vditrack.arrays import Floats, Ints
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError, install_command
from vditrack.input_checks.files import MalformedError, decode_json
from vditrack.input_checks.text import escape_surrogates
from vditrack.io.clip import Gap
from vditrack.io.track_files import SavedTracks
from vditrack.points.tracks import Tracks

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
SCHEMA_VERSION = 1
_RECORD, _QUERIES = b"vditrack", b"vditrack.queries"
"""Keys of the file's metadata."""
_GROUP_ROWS = 1 << 17
"""Rows in a row group, at most, unless one frame has more."""
_PACKAGES = ("vditrack", "numpy", "opencv-python-headless", "av", "onnxruntime", "pyarrow")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of tracks says of itself; JSON in its metadata, under the key ``vditrack``."""

    schema_version: int = SCHEMA_VERSION
    id: str
    """Id of the unit."""
    source: str
    """Path of the recording as it was given; bytes that are no UTF-8 are escaped."""
    source_sha256: str
    topic: str | None
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


def import_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, optional dependencies of the runtime.

    Raises:
        InputError: They are not installed or cannot be imported.

    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            f"pyarrow, which reads and writes Parquet, cannot be imported ({error}). "
            f"Run `{install_command('annotate')}`."
        ) from error


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
        source=escape_surrogates(unit.source.path.as_posix()),
        source_sha256=unit.identity.sha256,
        topic=unit.source.topic,
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
    tracks = _to_units_of_file(annotation, record)
    schema = _make_schema(pa, annotation.stamps is not None)
    schema = schema.with_metadata(
        {
            _RECORD: msgspec.json.encode(record),
            _QUERIES: msgspec.json.encode(tracks.queries.tolist()),
        }
    )
    count, frames = tracks.visible.shape
    step = max(1, _GROUP_ROWS // max(count, 1))
    with (
        staged_file(path) as scratch,
        parquet.ParquetWriter(scratch, schema, compression="zstd") as writer,
    ):
        for first in range(0, frames, step):
            rows = _make_rows(pa, annotation, tracks, slice(first, min(first + step, frames)))
            writer.write_table(pa.table(rows, schema=schema), row_group_size=_GROUP_ROWS * step)


def read_record(path: Path) -> Record:
    """Return what a file of tracks says of itself.

    Raises:
        InputError: There is no such file, it is damaged, or `write_tracks` has not written it.

    """
    pa, parquet = import_pyarrow()
    try:
        content = parquet.read_metadata(path).metadata or {}
        return decode_json(content.get(_RECORD, b""), Record)
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
        names = ("x", "y", "visible", "confidence", "forward_backward_error", "time")
        columns = {name: content[name].to_numpy().reshape(record.frames, -1) for name in names}
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise _explain_damage(path, error) from error
    count = record.measures.points
    x, y, visible, confidence, distance = (columns[name].T[:count] for name in names[:-1])
    scale = np.ones(2, np.float32)
    if record.specification.coordinates == "normalized":
        scale = np.asarray([record.width, record.height], np.float32)
    tracks = Tracks(
        queries=np.array(queries[:count], np.float32).reshape(-1, 3)
        * np.append(np.float32(1), scale),
        points=np.stack([x, y], axis=-1).astype(np.float32) * scale,
        visible=visible.astype(np.bool_),
        confidence=confidence.astype(np.float32),
        forward_backward_error=np.nan_to_num(distance.astype(np.float32), nan=np.inf),
    )
    times = columns["time"][:, 0] if columns["time"].size else np.zeros(record.frames)
    return SavedTracks(tracks, times, Path(record.source)), record


def read_stamps(path: Path) -> Ints | None:
    """Return the stamps of the frames in a file of tracks.

    Returns:
        int64 [T] nanoseconds; None if the recording is no bag, or no point was tracked.

    Raises:
        InputError: The file is damaged.

    """
    record = read_record(path)
    pa, parquet = import_pyarrow()
    try:
        if "stamp" not in parquet.read_schema(path).names:
            return None
        stamps = parquet.read_table(path, columns=["stamp"])["stamp"].to_numpy()
    except (OSError, pa.ArrowException) as error:
        raise _explain_damage(path, error) from error
    return stamps.reshape(record.frames, -1)[:, 0] if stamps.size else None


def _explain_damage(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged: {error}. Annotate the recording again.")


def _make_schema(pa: Any, stamped: bool) -> pyarrow.Schema:  # noqa: ANN401
    fields = [
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        *([pa.field("stamp", pa.int64(), nullable=False)] if stamped else []),
        pa.field("point", pa.int32(), nullable=False),
        pa.field("x", pa.float32()),
        pa.field("y", pa.float32()),
        pa.field("visible", pa.bool_(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("forward_backward_error", pa.float32()),
    ]
    return pa.schema(fields)


def _make_rows(
    pa: Any,  # noqa: ANN401
    annotation: Annotation,
    tracks: Tracks,
    frames: slice,
) -> dict[str, Any]:
    """Return the columns of some frames, by name."""
    count, length = len(tracks.visible), frames.stop - frames.start

    def by_frame(values: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(values[frames], count)

    def by_point(values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(values[:, frames].T).ravel()

    def known(values: NDArray[Any]) -> Any:  # noqa: ANN401
        flat = by_point(values)
        return pa.array(flat, pa.float32(), mask=~np.isfinite(flat))

    stamps = annotation.stamps
    return {
        "frame": by_frame(np.arange(len(annotation.times), dtype=np.int32)),
        "time": by_frame(annotation.times),
        **({} if stamps is None else {"stamp": by_frame(stamps)}),
        "point": np.tile(np.arange(count, dtype=np.int32), length),
        "x": known(tracks.points[..., 0]),
        "y": known(tracks.points[..., 1]),
        "visible": by_point(tracks.visible),
        "confidence": by_point(tracks.confidence),
        "forward_backward_error": known(tracks.forward_backward_error),
    }


def _to_units_of_file(annotation: Annotation, record: Record) -> Tracks:
    """Return tracks with the coordinates and the number of points that the file has."""
    tracks, specification = annotation.tracks, record.specification
    scale: Floats = np.ones(2, np.float32)
    if specification.coordinates == "normalized":
        scale = np.asarray([1 / record.width, 1 / record.height], np.float32)
    missing = max(0, (specification.pad_to or 0) - len(tracks.visible))

    def pad(values: NDArray[Any], fill: float) -> NDArray[Any]:
        around = ((0, missing), *((0, 0),) * (values.ndim - 1))
        return np.pad(values, around, constant_values=fill)

    return Tracks(
        queries=pad(tracks.queries * np.concatenate([np.ones(1, np.float32), scale]), np.nan),
        points=pad(tracks.points * scale, np.nan),
        visible=pad(tracks.visible, False),
        confidence=pad(tracks.confidence, 0),
        forward_backward_error=pad(tracks.forward_backward_error, np.inf),
    )


def _read_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Of onnxruntime there are several packages.
            continue
    return versions
