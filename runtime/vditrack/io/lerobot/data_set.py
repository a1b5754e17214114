"""Reads the description of a LeRobot data set of codebase version 3, without its frames."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

import msgspec

from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_python_json, read_file
from vditrack.io.parquet import import_pyarrow

INFO = Path("meta/info.json")
EPISODES = Path("meta/episodes")
_VERSION = re.compile(r"v?(\d+)(\.\d+)*")
_READ_VERSION = 3
_CONVERT = (
    "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=NAME --root=COPY "
    "--push-to-hub=false"
)
_DEPTH = ("is_depth_map", "video.is_depth_map")
"""Keys in the information on a feature that mark a depth camera."""


class Feature(msgspec.Struct, frozen=True):
    """What ``meta/info.json`` says of a column or a camera."""

    dtype: str
    shape: tuple[int, ...]
    info: dict[str, Any] | None = None

    @property
    def is_camera(self) -> bool:
        """Whether it has pictures with colour or grey levels, and not depth."""
        depth = any((self.info or {}).get(key) is True for key in _DEPTH)
        return self.dtype in {"video", "image"} and not depth


class _Versioned(msgspec.Struct, frozen=True):
    codebase_version: str


class Info(msgspec.Struct, frozen=True):
    """The part of ``meta/info.json`` that is read."""

    fps: float
    features: dict[str, Feature]
    data_path: str
    """Template of the paths of the tables."""
    video_path: str | None = None
    """Template of the paths of the videos."""


@dataclass(frozen=True)
class EpisodeFrames:
    """Where the frames of one camera of an episode are."""

    root: Path
    """Folder of the data set."""
    episode: int
    camera: str
    """Key of the camera."""
    length: int
    """Number of frames."""
    rate: float
    """Frames per second."""
    table: Path
    """Parquet file with a row for each frame."""
    video: Path
    """Video that holds the episode."""
    start: float
    """Time of the first frame in the video, in seconds."""

    @property
    def title(self) -> str:
        """Name of the episode and camera, for messages."""
        return f"{self.root}, episode {self.episode}, camera {self.camera}"


@dataclass(frozen=True)
class DataSet:
    """A LeRobot data set."""

    root: Path
    info: Info
    rows: Mapping[int, Mapping[str, Any]]
    """Rows of ``meta/episodes`` by episode, ascending, without statistics."""

    @property
    def cameras(self) -> list[str]:
        """Keys of the cameras, sorted, without depth cameras."""
        return sorted(key for key, one in self.info.features.items() if one.is_camera)

    def has_videos(self, camera: str) -> bool:
        """Return whether the pictures of a camera are in videos, and not in tables."""
        return self.info.features[camera].dtype == "video"

    def choose_camera(self, camera: str | None) -> str:
        """Return the key of a camera; None stands for the only one.

        Raises:
            InputError: There is no such camera, or several and none is named, or its pictures are
                in tables.

        """
        has = ", ".join(self.cameras) or "none"
        if camera is None and len(self.cameras) == 1:
            camera = self.cameras[0]
        if camera is None:
            raise InputError(f"{self.root} has several cameras ({has}). Name one with --camera.")
        if camera not in self.cameras:
            raise InputError(f"{self.root} has no camera {camera}. Its cameras: {has}.")
        if not self.has_videos(camera):
            raise InputError(
                f"{self.root}, camera {camera}: pictures in tables are not read. Write the data "
                "set with videos."
            )
        return camera

    def locate(self, episode: int, camera: str) -> EpisodeFrames:
        """Return where the frames of a camera of an episode are.

        Args:
            episode: Its number.
            camera: Key of a camera, as `choose_camera` returns it.

        Raises:
            InputError: There is no such episode, or its description is damaged.

        """
        row = self.rows.get(episode)
        if row is None:
            raise InputError(f"{self.root} has no episode {episode}. {describe_episodes(self)}")
        prefix = f"videos/{camera}/"
        if self.info.video_path is None:
            raise InputError(f"{self.root / INFO} has no video_path. Repair the data set.")
        start = self._read(row, f"{prefix}from_timestamp", float)
        if not (math.isfinite(start) and start >= 0):
            raise InputError(
                f"{self.root}: {prefix}from_timestamp of episode {episode} is {start}. Repair "
                "the data set."
            )
        return EpisodeFrames(
            root=self.root,
            episode=episode,
            camera=camera,
            length=self._read(row, "length", int),
            rate=self.info.fps,
            table=self._make_path(self.info.data_path, row, "data/", camera),
            video=self._make_path(self.info.video_path, row, prefix, camera),
            start=start,
        )

    def _make_path(self, template: str, row: Mapping[str, Any], prefix: str, camera: str) -> Path:
        """Return the path of a file of an episode, below the data set."""
        numbers = {
            name: self._read(row, prefix + name, int) for name in ("chunk_index", "file_index")
        }
        relative = _fill_template(template, {"video_key": camera, **numbers})
        if relative is None:
            raise InputError(
                f"{self.root / INFO}: {template} is not a template of paths below the data set. "
                "Repair the data set."
            )
        return self.root / relative

    def _read(self, row: Mapping[str, Any], name: str, kind: type[Any]) -> Any:  # noqa: ANN401
        try:
            return msgspec.convert(row.get(name), kind)
        except msgspec.ValidationError as error:
            raise InputError(
                f"{self.root / EPISODES}: {name} of episode {row['episode_index']} is "
                f"{row.get(name)}. Repair the data set."
            ) from error


def is_data_set(folder: Path) -> bool:
    """Return whether a folder is a LeRobot data set, of any version, perhaps damaged."""
    info = folder / INFO
    if not info.is_file():
        return False
    if (folder / EPISODES).is_dir():
        return True
    try:
        return b'"codebase_version"' in read_file(info, MAX_JSON_SIZE)
    except OSError:
        return False


def open_data_set(root: Path) -> DataSet:
    """Read the description of a data set.

    Raises:
        InputError: It is of another version than 3, damaged, or has no camera.

    """
    info_file, tables = root / INFO, sorted((root / EPISODES).glob("*/*.parquet"))
    status = [(str(path), path.stat()) for path in (info_file, *tables)]
    key = [(name, one.st_ino, one.st_size, one.st_mtime_ns) for name, one in status]
    return _open(root, tuple(key))


@lru_cache(maxsize=8)
def _open(root: Path, status: tuple[tuple[str, int, int, int], ...]) -> DataSet:
    """Read a data set; the sizes and times of the files are part of the key of the cache."""
    info = _read_info(root)
    rows: dict[int, Mapping[str, Any]] = {}
    for name, *_ in status[1:]:
        for row in _read_rows(Path(name)):
            rows[row["episode_index"]] = row
    found = DataSet(root, info, dict(sorted(rows.items())))
    if not found.rows:
        raise InputError(f"{root} has no episodes: {root / EPISODES} has no rows.")
    if not found.cameras:
        raise InputError(f"{root} has no camera: no feature has the dtype video or image.")
    return found


def _read_info(root: Path) -> Info:
    path = root / INFO
    try:
        content = read_file(path, MAX_JSON_SIZE)
        version = decode_python_json(content, _Versioned).codebase_version
        match = _VERSION.fullmatch(version)
        if match is None:
            raise MalformedError(f"codebase_version is {version}")
        if int(match[1]) == _READ_VERSION:
            return _check_info(decode_python_json(content, Info))
    except (OSError, MalformedError) as error:
        raise InputError(
            f"{path} does not describe a LeRobot data set: {error}. Repair the data set."
        ) from error
    remedy = f"Convert a copy with LeRobot, for example of v2.1: `{_CONVERT}`."
    if int(match[1]) > _READ_VERSION:
        remedy = "Use a newer vditrack, or write the data set as v3.0."
    raise InputError(
        f"{root} is a LeRobot data set of version {version}, and only v3 is read. {remedy}"
    )


def _check_info(info: Info) -> Info:
    if not (math.isfinite(info.fps) and info.fps > 0):
        raise MalformedError(f"fps is {info.fps}")
    return info


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of episodes, without the statistics."""
    pa, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            rows: list[dict[str, Any]] = file.read(columns=names).to_pylist()
        if any(not isinstance(row.get("episode_index"), int) for row in rows):
            raise ValueError("a row has no episode_index")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not a table of episodes: {error}. Repair the data set."
        ) from error
    return rows


def describe_episodes(data_set: DataSet) -> str:
    """Return a sentence on which episodes a data set has."""
    first, last = next(iter(data_set.rows)), next(reversed(data_set.rows))
    return f"It has {len(data_set.rows)}, from {first} to {last}."


def _fill_template(template: str, values: Mapping[str, object]) -> PurePosixPath | None:
    """Return a relative path; None if it could lead out of the folder, or is not a template."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        if not fields <= set(values):
            return None
        path = PurePosixPath(template.format(**values))
    except (ValueError, KeyError, IndexError):
        return None
    safe = not path.is_absolute() and ".." not in path.parts and "\0" not in str(path)
    return path if safe else None
