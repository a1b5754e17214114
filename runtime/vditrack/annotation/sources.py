"""Lists the recordings that a job reads: files, folders, patterns and manifests."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from vditrack.annotation.manifests import MANIFEST_SUFFIXES, Entry, read_manifest
from vditrack.annotation.recordings import Remote, Source, is_recording, list_episodes, list_files
from vditrack.annotation.remote_sources import inspect_remote, list_remote
from vditrack.annotation.settings import FORMATS, THUMBNAILS, has_results
from vditrack.annotation.storage import Location, describe, is_address, parse_address, read_bytes
from vditrack.errors import InputError
from vditrack.io.lerobot.data_set import is_data_set, open_data_set


def list_sources(arguments: Sequence[str]) -> list[Source]:
    """Return the recordings that the arguments name, each once.

    An argument is a video file, a folder of images, a bag, a LeRobot data set, a folder that is
    searched for these, a pattern with ``*``, or a manifest (`.txt`, `.csv`, `.jsonl`). It is on a
    disk, or in a storage with an address such as ``s3://bucket/folder``. The order is that of the
    arguments; in folders and patterns it is that of the names.

    Raises:
        InputError: A pattern or a folder has no recording, a manifest is not valid, or a storage
            cannot be used.

    """
    found = (source for argument in arguments for source in _list_argument(argument))
    return list(dict.fromkeys(found))


def select_episodes(
    sources: Sequence[Source], episodes: Collection[int] | None, cameras: Collection[str] | None
) -> list[Source]:
    """Return the sources without other episodes and cameras of data sets than the given ones.

    Args:
        sources: The sources; those that are not of a data set stay.
        episodes: Numbers of episodes; None for all.
        cameras: Keys of cameras; None for all.

    Raises:
        InputError: An episode or a camera is in no data set.

    """
    of_data_sets = [source for source in sources if _is_in_data_set(source)]
    numbers = [source.episode for source in of_data_sets if source.episode is not None]
    for option, wanted, known in (
        ("--episodes", episodes, dict.fromkeys(numbers)),
        ("--camera", cameras, dict.fromkeys(source.topic for source in of_data_sets)),
    ):
        missing = [one for one in wanted or () if one not in known]
        if missing:
            _refuse_unreadable(sources)
            has = ", ".join(map(str, list(known)[:20])) or "no LeRobot data set"
            raise InputError(f"{option}: no data set has {missing[0]}. There is: {has}.")
    return [
        source
        for source in sources
        if not _is_in_data_set(source)
        or (
            (episodes is None or source.episode is None or source.episode in episodes)
            and (cameras is None or source.topic in cameras)
        )
    ]


def refuse_absent(sources: Sequence[Source]) -> None:
    """Check that at least one recording may be there; others are reported with the failures.

    Raises:
        InputError: None is, or a storage cannot be used.

    """
    if not any(map(_may_exist, sources)):
        raise InputError(f"there is no {sources[0].place}, nor any other recording that is named.")


def _may_exist(source: Source) -> bool:
    if source.remote is not None:
        return source.remote.version is not None or describe(source.remote.location) is not None
    try:
        source.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _is_in_data_set(source: Source) -> bool:
    """Return whether a source is a camera of a data set, of one episode or of all."""
    if source.episode is not None:
        return True
    return source.topic is not None and _is_data_set(source.path)


def _refuse_unreadable(sources: Sequence[Source]) -> None:
    """Check that the data sets among the sources can be read.

    Raises:
        InputError: One cannot.

    """
    for source in sources:
        if source.episode is None and _is_data_set(source.path):
            open_data_set(source.path)


def _list_argument(argument: str) -> Iterator[Source]:
    if is_address(argument):
        yield from _list_address(argument)
        return
    path = Path(argument)
    if path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
        yield from _list_entries(read_manifest(argument, _read_file(path)), path.parent)
        return
    if not os.path.lexists(path) and glob.has_magic(argument):
        yield from _list_matches(argument)
        return
    # What is not there is reported with the failures: one bad path of many ends no job.
    sources = list(_search(path)) if os.path.isdir(path) else [Source(path)]  # noqa: PTH112 - no error
    if not sources:
        raise InputError(
            f"{argument} has no video, bag, data set or folder of images. "
            "Give a folder that has some."
        )
    yield from sources


def _list_address(address: str) -> Iterator[Source]:
    location = parse_address(address)
    if Path(location.key).suffix.lower() in MANIFEST_SUFFIXES:
        content = read_bytes(location)
        yield from _list_entries(read_manifest(address, content), location.parent())
        return
    yield from list_remote(location)


def _list_entries(entries: Iterable[Entry], folder: Path | Location) -> Iterator[Source]:
    """Yield the recordings of a manifest, whose relative paths begin at a folder."""
    named = [_make_source(entry, folder) for entry in entries]
    inspected = inspect_remote([source for source in named if source.remote is not None])
    for source in named:
        if source.remote is not None:
            yield from inspected[source]
        elif _is_data_set(source.path):
            yield from list_episodes(source)
        else:
            yield source


def _make_source(entry: Entry, folder: Path | Location) -> Source:
    location = None
    if is_address(entry.path):
        location = parse_address(entry.path)
    elif isinstance(folder, Location) and not Path(entry.path).is_absolute():
        location = folder.child(entry.path)
    path = Path(entry.path) if isinstance(folder, Location) else folder / entry.path
    return Source(
        path if location is None else Path(location.address),
        entry.topic or None,
        entry.start,
        entry.end,
        entry.episode,
        None if location is None else Remote(location),
    )


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the manifest {path} cannot be read: {error}.") from error


def _list_matches(pattern: str) -> Iterator[Source]:
    """Yield the recordings that match a pattern, and those in folders that match it."""
    matches, unreadable = _match(pattern)
    if not matches and not unreadable:
        raise InputError(f"no file matches {pattern}.")
    # A suffix that the pattern names is wanted.
    suffix = Path(pattern).suffix
    named = bool(suffix) and not glob.has_magic(suffix)
    bags = {match for match in matches if os.path.isfile(match / "metadata.yaml")}  # noqa: PTH113 - no error
    found = bool(unreadable)
    for match in matches:
        if os.path.isdir(match):  # noqa: PTH112 - no error
            sources = list(_search(match))
        elif match.parent in bags or _belongs_to_results(match.parent):
            continue
        elif named or is_recording(match):
            sources = [Source(match)]
        else:
            continue
        found |= bool(sources)
        yield from sources
    yield from map(Source, unreadable)
    if not found:
        raise InputError(f"{pattern} matches no video, bag or folder of images.")


def _match(pattern: str) -> tuple[list[Path], list[Path]]:
    """Return the paths that match a pattern, and folders below ``**`` that cannot be read."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(map(Path, glob.glob(pattern))), []  # noqa: PTH207 - absolute patterns
    root = Path(*takewhile(lambda part: not glob.has_magic(part), parts))
    wanted = parts[len(root.parts) :]
    errors: list[OSError] = []
    hidden = any(part.startswith(".") for part in wanted)
    found = [
        path
        for path in _walk(root, errors, hidden=hidden)
        if _fits(path.parts[len(root.parts) :], wanted)
    ]
    unreadable = {Path(error.filename) for error in errors if error.errno != errno.ENOENT}
    return sorted(set(found) - unreadable), sorted(unreadable)


def _walk(root: Path, errors: list[OSError], *, hidden: bool) -> Iterator[Path]:
    """Yield a folder and what is below it, also behind links that do not lead in a circle."""
    above = {os.fspath(root): frozenset[str]()}
    yield root
    for folder, folders, names in os.walk(root, onerror=errors.append, followlinks=True):
        known = above.pop(folder) | {os.path.realpath(folder)}
        folders[:] = [
            name
            for name in folders
            if (hidden or not name.startswith("."))
            and os.path.realpath(os.path.join(folder, name)) not in known  # noqa: PTH118
        ]
        above |= {os.path.join(folder, name): known for name in folders}  # noqa: PTH118
        yield from (Path(folder, name) for name in (*folders, *names))


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a pattern, as in `glob`."""
    if not wanted:
        return not parts
    if wanted[0] == "**" and _fits(parts, wanted[1:]):
        return True
    if not parts or (parts[0].startswith(".") and not wanted[0].startswith(".")):
        return False
    if wanted[0] == "**":
        return _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _search(root: Path) -> Iterator[Source]:
    """Yield the recordings in a folder and the folders below it, in the order of their names."""
    seen = {os.fspath(folder) for folder in Path(os.path.realpath(root)).parents}
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=unreadable.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or _belongs_to_results(Path(real)):
            folders.clear()
            continue
        # Links may lead in a circle.
        seen.add(real)
        if is_data_set(Path(folder)):
            folders.clear()
            yield from list_episodes(Source(Path(folder)))
            continue
        if "metadata.yaml" in names:
            folders.clear()
            yield Source(Path(folder))
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from list_files(Path(folder), names)
    # They are reported with the failures.
    yield from (Source(Path(error.filename)) for error in unreadable)


def _is_data_set(path: Path) -> bool:
    try:
        return is_data_set(path)
    except OSError:
        return False


def _belongs_to_results(folder: Path) -> bool:
    """Return whether a folder has pictures or tracks of a job, which are no recordings."""
    return folder.name in (THUMBNAILS, *FORMATS) and has_results(folder.parent)
