"""The formats that can be chosen, and which of their files are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vditrack.annotation.annotate import Progress
from vditrack.annotation.folders import Folder
from vditrack.annotation.formats.content import TrackContent
from vditrack.annotation.formats.hdf5 import import_h5py, write_hdf5
from vditrack.annotation.formats.mcap import import_mcap, write_mcap
from vditrack.annotation.formats.rerun import write_rerun
from vditrack.annotation.settings import FORMATS, FormatName
from vditrack.errors import InputError
from vditrack.io.rerun_recording import import_rerun


class _Format(NamedTuple):
    suffix: str
    check: Callable[[], object]
    """Raises an `InputError` if a package is missing."""
    write: Callable[[Path, TrackContent, Progress], None]
    frames: bool = False
    """Whether the file has the frames of the recording."""


_WRITERS: Mapping[FormatName, _Format] = {
    "hdf5": _Format(".hdf5", import_h5py, write_hdf5),
    "mcap": _Format(".mcap", import_mcap, write_mcap),
    "rerun": _Format(".rrd", import_rerun, write_rerun, frames=True),
}


def check_formats(names: Iterable[str]) -> tuple[FormatName, ...]:
    """Return the formats of some names, each once; those that need no frames come first.

    Raises:
        InputError: There is no such format, or a package that writes it is missing.

    """
    chosen: set[FormatName] = set()
    for name in names:
        found = next((one for one in FORMATS if one == name), None)
        if found is None:
            raise InputError(f"there is no format {name}. Choose from {', '.join(FORMATS)}.")
        chosen.add(found)
    # The others are then written also if the recording cannot be read again.
    ordered = tuple(one for one in FORMATS if one in chosen)
    for one in ordered:
        _WRITERS[one].check()
    return ordered


def locate_file(file_format: FormatName, name: str) -> str:
    """Return the name of a file in the folder of the results, by the name of its unit's files."""
    return f"{file_format}/{name}{_WRITERS[file_format].suffix}"


def list_missing(folder: Folder, name: str, formats: Sequence[FormatName]) -> list[FormatName]:
    """Return the formats of which a unit has no file yet.

    Args:
        folder: Folder of the results.
        name: Name of the unit's files, without their suffix.
        formats: Formats that are wanted.

    """
    return [one for one in formats if not folder.exists(locate_file(one, name))]


def needs_frames(file_format: FormatName) -> bool:
    """Return whether a format has the frames of the recording."""
    return _WRITERS[file_format].frames


def write_format(
    path: Path, file_format: FormatName, content: TrackContent, progress: Progress
) -> None:
    """Write a file of a format; it appears when it is complete.

    Raises:
        SourceError: The recording cannot be read again.
        InputError: A package is missing, or the file cannot be written.

    """
    _WRITERS[file_format].write(path, content, progress)
