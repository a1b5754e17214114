"""Reads queries and writes tracks: NPZ, CSV and NPY files."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vditrack.arrays import Doubles, Floats
from vditrack.errors import InputError
from vditrack.io.clip import Gap
from vditrack.points.tracks import Tracks

_ARRAYS = ("queries", "points", "visible", "confidence", "forward_backward_error")
"""Names of the arrays of tracks in a file."""


@dataclass(frozen=True)
class SavedTracks:
    """The content of a file of tracks."""

    tracks: Tracks
    times: Doubles
    """float64 [T] of the frames, in seconds."""
    video: Path | None
    """The video that was tracked; None if the file does not say."""


def save_npz(
    path: Path,
    tracks: Tracks,
    times: Doubles,
    gaps: Sequence[Gap] = (),
    video: Path | None = None,
) -> None:
    """Write tracks as named arrays.

    Args:
        path: Destination.
        tracks: Tracks over T frames.
        times: float64 [T] of the frames, in seconds.
        gaps: Where frames are missing; ``gaps`` float64 [G, 3] has the start and the end in seconds
            and the number of missing frames of each.
        video: The video; ``video`` is its absolute path, with ~ for the home folder.

    """
    optional: dict[str, Any] = {} if tracks.object_id is None else {"object_id": tracks.object_id}
    if video is not None:
        optional["video"] = _name_without_user(video)
    np.savez_compressed(
        path,
        times=times,
        gaps=np.array(gaps, np.float64).reshape(-1, 3),
        queries=tracks.queries,
        points=tracks.points,
        visible=tracks.visible,
        confidence=tracks.confidence,
        forward_backward_error=tracks.forward_backward_error,
        **optional,
    )


def read_npz(path: Path) -> SavedTracks:
    """Read tracks that `save_npz` has written.

    Raises:
        InputError: The file does not exist, is damaged, or holds other arrays.

    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in _ARRAYS}
            tracks = Tracks(**fields, object_id=arrays.get("object_id"))
            times = arrays["times"]
            video = _find_video(str(arrays["video"])) if "video" in arrays else None
    # Of a file that is no archive, NumPy raises one of several errors.
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, AttributeError) as error:
        raise InputError(
            f"{path} is not a file of tracks that `vditrack track` has written: {error}."
        ) from error
    count, length = tracks.visible.shape if tracks.visible.ndim == 2 else (0, 0)
    if tracks.points.shape != (count, length, 2) or times.shape != (length,):
        raise InputError(
            f"{path} has points {list(tracks.points.shape)} and {len(times)} times; they should be "
            "[N, T, 2] and [T]."
        )
    return SavedTracks(tracks, times, video)


def _name_without_user(path: Path) -> str:
    """Return an absolute path, with ~ for the home folder: tracks are passed on to others."""
    absolute, home = path.absolute(), _home()
    if home.is_absolute() and home != Path(home.anchor) and absolute.is_relative_to(home):
        return f"~/{absolute.relative_to(home).as_posix()}"
    return str(absolute)


def _find_video(name: str) -> Path:
    return _home() / name[2:] if name.startswith("~/") else Path(name)


def _home() -> Path:
    """Return the user's home folder, or ``~`` itself where there is none."""
    return Path(os.path.expanduser("~"))  # noqa: PTH111 - pathlib's raises without a home folder


def save_csv(path: Path, tracks: Tracks, times: Doubles) -> None:
    """Write tracks as CSV, one row per point and frame.

    The columns are id, frame, time (seconds, from ``times`` float64 [T]), x, y (pixels), visible,
    confidence, forward_backward_error (pixels) and, if the tracks have it, object_id.
    """
    objects = [] if tracks.object_id is None else ["object_id"]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            [
                "id",
                "frame",
                "time",
                "x",
                "y",
                "visible",
                "confidence",
                "forward_backward_error",
                *objects,
            ]
        )
        for n, points in enumerate(tracks.points):
            for t, (x, y) in enumerate(points.tolist()):
                rows.writerow(
                    [
                        n,
                        t,
                        f"{times[t]:.6f}",
                        f"{x:.3f}",
                        f"{y:.3f}",
                        int(tracks.visible[n, t]),
                        f"{tracks.confidence[n, t]:.4f}",
                        f"{tracks.forward_backward_error[n, t]:.3f}",
                        *([] if tracks.object_id is None else [int(tracks.object_id[n, t])]),
                    ]
                )


def read_queries(path: Path) -> Floats:
    """Read query points [N, 3] (t, x, y) from a CSV or NumPy file.

    A CSV file has the header ``t,x,y``, or ``x,y`` for points in frame 0; a ``.npy`` file holds
    [N, 3] or [N, 2] in the same order.

    Raises:
        InputError: The file does not exist or has another form. For a CSV, the message names the
            line.

    """
    if not path.is_file():
        raise InputError(f"{path} is not a file. Give a CSV with the header t,x,y, or a .npy.")
    rows = _read_npy(path) if path.suffix == ".npy" else _read_csv(path)
    if rows.ndim != 2 or rows.shape[1] not in (2, 3) or not len(rows):
        raise InputError(f"{path} holds {list(rows.shape)} numbers. Give [N, 3] (t, x, y).")
    first_frame = np.zeros((len(rows), 3 - rows.shape[1]), np.float32)
    return np.concatenate([first_frame, rows], axis=1)


def _read_npy(path: Path) -> Floats:
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is not a NumPy array of numbers: {error}") from error


def _read_csv(path: Path) -> Floats:
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error
    header = [name.strip().lower() for name in lines[0]] if lines else []
    if header not in (["t", "x", "y"], ["x", "y"]):
        raise InputError(f"{path}, line 1: the header is {header}; it should be t,x,y or x,y.")
    rows = [
        _parse_row(path, number, line, len(header))
        for number, line in enumerate(lines[1:], start=2)
        if line
    ]
    return np.array(rows, np.float32).reshape(-1, len(header))


def _parse_row(path: Path, number: int, line: list[str], count: int) -> list[float]:
    try:
        values = [float(value) for value in line]
    except ValueError as error:
        raise InputError(f"{path}, line {number}: {error}") from error
    if len(values) != count:
        raise InputError(f"{path}, line {number}: {len(values)} values, the header has {count}.")
    return values
