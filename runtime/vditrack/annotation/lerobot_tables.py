"""Writes the files of a copy of a LeRobot data set that has tracks as new features."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotation.lerobot_features import (
    MEASURED,
    EpisodeTracks,
    TotalStatistics,
    TrackFeatures,
    add_types,
    list_statistics,
)
from vditrack.annotation.track_tables import SUFFIX, Record, read_tracks
from vditrack.errors import InputError
from vditrack.input_checks.files import MalformedError, decode_python_json, read_file
from vditrack.io.lerobot.data_set import EPISODES, INFO, DataSet, open_data_set
from vditrack.io.parquet import import_pyarrow

STATISTICS = Path("meta/stats.json")
MAX_META_SIZE = 1 << 28
"""Largest accepted size of a JSON file in ``meta``, in bytes."""
_BATCH_BYTES = 64 << 20
"""Memory of the tracks that are written at once."""
_POINT_BYTES = 13
"""Bytes of a point in a frame."""
_EPISODES_AT_ONCE = 64
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class TracksFile:
    """A file of tracks, and what it says of itself."""

    path: Path
    record: Record


class CopyWriter:
    """Writes the files of a copy into a scratch folder."""

    def __init__(
        self,
        root: Path,
        scratch: Path,
        features: list[TrackFeatures],
        tracks: Mapping[tuple[int, str], TracksFile],
    ) -> None:
        """Take what is written.

        Args:
            root: Folder of the data set.
            scratch: Empty folder that is written.
            features: New features, of each camera.
            tracks: Files of tracks by episode and camera.

        """
        self._root, self._scratch, self._features, self._tracks = root, scratch, features, tracks
        self._data_set = open_data_set(root)
        self._read = lru_cache(maxsize=4 * len(features))(self._read_episode)
        self._totals: dict[str, TotalStatistics] = {}
        self._statistics = read_statistics(root)

    def write(self, provenance: Path, content: object) -> None:
        """Write all files.

        Args:
            provenance: Relative path of the file that says where the tracks are from.
            content: What is written there, as JSON.

        Raises:
            InputError: The data set or a file of tracks is damaged.

        """
        for path in list_files(self._root):
            target = self._scratch / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if _is_data(path):
                self._write_data(self._root / path, target)
            elif _is_episodes(path):
                self._write_episodes(self._root / path, target)
            elif path not in (INFO, STATISTICS, provenance):
                _copy_file(self._root / path, target)
        self._write_totals()
        info = _read_json(self._root / INFO, dict[str, Any])
        for one in self._features:
            info["features"] |= one.describe()
        _write_json(self._scratch / INFO, info)
        _write_json(self._scratch / provenance, msgspec.to_builtins(content))

    def _read_episode(self, episode: int, camera: str) -> EpisodeTracks:
        """Return the tracks of a camera of an episode; missing points if there are none."""
        features = next(one for one in self._features if one.camera == camera)
        length, count = int(self._data_set.rows[episode]["length"]), features.count
        points = np.full((length, count, 2), np.nan, np.float32)
        visible = np.zeros((length, count), np.bool_)
        confidence = np.zeros((length, count), np.float32)
        file = self._tracks.get((episode, camera))
        if file is not None:
            found, record = read_tracks(file.path)
            tracks, scale = found.tracks, np.ones(2, np.float32)
            if features.coordinates == "normalized":
                scale = np.array([record.width, record.height], np.float32)
            kept = len(tracks.points)
            points[:, :kept] = tracks.points.transpose(1, 0, 2) / scale
            visible[:, :kept] = tracks.visible.T
            confidence[:, :kept] = tracks.confidence.T
        return EpisodeTracks(points, visible, confidence)

    def _write_data(self, source: Path, target: Path) -> None:
        """Copy a table of frames with new columns."""
        pa, _ = import_pyarrow()
        fields = [field for one in self._features for field in one.make_fields(pa)]
        width = sum(one.count for one in self._features) * _POINT_BYTES
        rows = max(1, _BATCH_BYTES // width)
        _rewrite(
            (source, target),
            fields,
            lambda metadata: add_types(metadata, self._features),
            self._make_rows,
            rows,
        )

    def _make_rows(self, batch: Any) -> list[Any]:  # noqa: ANN401
        """Return the new columns of some rows of a table of frames."""
        pa, _ = import_pyarrow()
        episodes, numbers = (np.asarray(batch[name]) for name in ("episode_index", "frame_index"))
        starts = [0, *(np.flatnonzero(np.diff(episodes)) + 1).tolist()]
        runs = [slice(a, b) for a, b in zip(starts, [*starts[1:], len(episodes)], strict=True)]
        columns = []
        for one in self._features:
            parts = []
            for run in runs:
                tracks = self._read(int(episodes[run.start]), one.camera)
                parts.append([values[numbers[run]] for values in tracks])
            joined = EpisodeTracks(*(np.concatenate(values) for values in zip(*parts, strict=True)))
            columns += one.make_columns(pa, joined)
        return columns

    def _write_episodes(self, source: Path, target: Path) -> None:
        """Copy a table of episodes with the statistics of the new columns."""
        pa, _ = import_pyarrow()
        names = list_statistics(self._statistics)
        fields = []
        for one in self._features:
            for place in MEASURED:
                for name in names:
                    kind = pa.int64() if name == "count" else pa.float64()
                    column = f"stats/{one.names[place]}/{name}"
                    fields.append(pa.field(column, pa.list_(kind)))

        def make_columns(batch: Any) -> list[Any]:  # noqa: ANN401
            rows = [self._measure(episode) for episode in batch["episode_index"].to_pylist()]
            columns = zip(*rows, strict=True)
            return [
                pa.array([values.tolist() for values in column], field.type)
                for column, field in zip(columns, fields, strict=True)
            ]

        # Types that `datasets` stored do not name the new columns; it infers them.
        _rewrite((source, target), fields, _drop_types, make_columns, _EPISODES_AT_ONCE)

    def _measure(self, episode: int) -> list[NDArray[Any]]:
        """Return the statistics of an episode in the order of the columns, and add them up."""
        names = list_statistics(self._statistics)
        row = []
        for one in self._features:
            measured = one.measure(self._read(episode, one.camera), names)
            for feature, statistics in measured.items():
                known = (episode, one.camera) in self._tracks
                self._totals.setdefault(feature, TotalStatistics()).add(statistics, known=known)
                row += [statistics[name] for name in names]
        return row

    def _write_totals(self) -> None:
        new = {
            feature: {name: values.tolist() for name, values in total.summarize().items()}
            for feature, total in self._totals.items()
        }
        _write_json(self._scratch / STATISTICS, self._statistics | new)


def _rewrite(
    paths: tuple[Path, Path],
    fields: Sequence[Any],
    change_metadata: Callable[[Mapping[bytes, bytes]], Mapping[bytes, bytes]],
    make_columns: Callable[[Any], list[Any]],
    rows: int,
) -> None:
    """Copy a table with new columns.

    Args:
        paths: Of the table and of its copy.
        fields: pyarrow fields of the new columns.
        change_metadata: Returns the metadata of the copy.
        make_columns: Returns the new columns for a batch of rows.
        rows: Largest number of rows of a batch.

    Raises:
        InputError: The table is damaged, or lacks what the new columns need.

    """
    pa, parquet = import_pyarrow()
    source, target = paths
    try:
        with parquet.ParquetFile(source) as file:
            schema = file.schema_arrow
            schema = pa.schema([*schema, *fields], change_metadata(schema.metadata or {}))
            with parquet.ParquetWriter(target, schema) as writer:
                for batch in file.iter_batches(rows):
                    columns = [*batch.columns, *make_columns(batch)]
                    writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    except (KeyError, IndexError, ValueError, pa.ArrowException) as error:
        raise _explain_damage(source, repr(error)) from error


def _drop_types(metadata: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: value for key, value in metadata.items() if key != b"huggingface"}


def list_files(root: Path) -> list[Path]:
    """Return the relative paths of the files of a data set, without hidden ones, sorted."""
    paths = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [(Path(folder) / name).relative_to(root) for name in names if name[0] != "."]
    return sorted(paths)


def list_folders(root: Path) -> set[Path]:
    """Return the real paths of a data set's folder, and of those that links in it lead to."""
    found = {root.resolve()}
    for folder, folders, _ in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(folder) / name for name in folders]
        found |= {path.resolve() for path in paths if path.is_symlink()}
    return found


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file; a video becomes a hard link if it can."""
    if source.suffix == ".mp4":
        with suppress(OSError):
            # What a symbolic link leads to, not the link.
            target.hardlink_to(source.resolve())
            return
    shutil.copy2(source, target)


def _is_data(path: Path) -> bool:
    """Return whether a relative path is that of a table of frames."""
    return path.suffix == SUFFIX and path.is_relative_to("data")


def _is_episodes(path: Path) -> bool:
    """Return whether a relative path is that of a table of episodes."""
    return path.suffix == SUFFIX and path.is_relative_to(EPISODES)


def read_statistics(root: Path) -> dict[str, dict[str, Any]]:
    """Return the statistics of a data set by feature; none if it has no file of them.

    Raises:
        InputError: The file cannot be read.

    """
    path = root / STATISTICS
    return _read_json(path, dict[str, dict[str, Any]]) if path.exists() else {}


def check_content(data_set: DataSet) -> None:
    """Check that the files of a data set can be copied with new columns.

    Raises:
        InputError: A file cannot be read, or a table lacks what the new columns need.

    """
    pa, parquet = import_pyarrow()
    root = data_set.root
    read_statistics(root)
    for path in list_files(root):
        file = root / path
        if not (file.is_file() and os.access(file, os.R_OK)):
            raise InputError(f"{file} cannot be read. Repair the data set.")
        if not (_is_data(path) or _is_episodes(path)):
            continue
        try:
            with parquet.ParquetFile(file) as table:
                names = table.schema_arrow.names
                episodes = table.read(columns=["episode_index"])["episode_index"]
        except (KeyError, OSError, ValueError, pa.ArrowException) as error:
            raise _explain_damage(file, repr(error)) from error
        if _is_data(path) and "frame_index" not in names:
            raise _explain_damage(file, "it has no frame_index")
        unknown = set(episodes.unique().to_pylist()) - set(data_set.rows)
        if unknown:
            raise _explain_damage(file, f"it has rows of episode {min(unknown, key=str)}")


def find_damage(root: Path, copy: Path) -> Path | None:
    """Return a file of a copy that is missing or damaged; None if there is none.

    Args:
        root: The data set.
        copy: The copy, whose tables have as many rows, and whose videos are as large.

    """
    pa, parquet = import_pyarrow()
    for path in sorted({*list_files(root), STATISTICS}):
        file = copy / path
        try:
            if _is_data(path) or _is_episodes(path):
                rows = [parquet.read_metadata(one).num_rows for one in (root / path, file)]
                intact = rows[0] == rows[1]
            elif path in (INFO, STATISTICS):
                intact = bool(_read_json(file, dict[str, Any]))
            else:
                same = path.suffix != ".mp4" or file.stat().st_size == (root / path).stat().st_size
                intact = file.is_file() and same
        except (OSError, InputError, pa.ArrowException):
            intact = False
        if not intact:
            return file
    return None


def _explain_damage(file: Path, reason: object) -> InputError:
    return InputError(
        f"{file} does not fit meta/episodes or is damaged: {reason}. Repair the data set."
    )


def _read_json(path: Path, kind: type[_Kind]) -> _Kind:
    """Return the content of a file, which Python may have written, as LeRobot does."""
    try:
        return decode_python_json(read_file(path, MAX_META_SIZE), kind)
    except (OSError, MalformedError) as error:
        raise InputError(f"{path} cannot be read: {error}. Repair the data set.") from error


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=4), encoding="utf-8")
