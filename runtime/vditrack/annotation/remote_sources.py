"""Lists recordings in a storage by the rules for folders on a disk, and says what version they are.

A version is a digest of what the storage says of the files: their sizes and, in object storage,
their entity tags, which change with the content. It tells only whether a recording has to be read
again. What identifies it is a digest of its content.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from glob import has_magic
from pathlib import Path
from typing import NamedTuple

from vditrack.annotation.recordings import Remote, Source, is_recording, list_episodes, list_files
from vditrack.annotation.scratch import open_scratch
from vditrack.annotation.settings import FORMATS, JOB_FILE, THUMBNAILS, decode_settings
from vditrack.annotation.storage import (
    Entry,
    Location,
    Report,
    describe,
    download,
    find_files,
    list_folder,
    match_pattern,
    read_bytes,
)
from vditrack.errors import InputError
from vditrack.input_checks.files import MalformedError
from vditrack.io.lerobot.data_set import EPISODES, INFO, open_data_set

Files = Mapping[str, Entry]
"""Files by their paths in a folder."""
_REQUESTS = 16
"""Requests that are made at a time."""
_METADATA = "metadata.yaml"
_MARK = b'"codebase_version"'


class _Folder(NamedTuple):
    """What is in a folder itself."""

    files: Files
    folders: Collection[str]


def list_remote(location: Location) -> list[Source]:
    """Return the recordings at a location: a file, a folder that is searched, or a pattern.

    Raises:
        InputError: There is no recording, or the storage cannot be used.

    """
    entry = describe(location)
    if entry is None and has_magic(location.key):
        return _list_matches(location)
    if entry is None or not entry.is_folder:
        # What is not there is reported with the failures.
        return [_make_source(location, {} if entry is None else {location.key: entry})]
    sources = list(_search(location, find_files(location)))
    if not sources:
        raise InputError(
            f"{location.address} has no video, bag, data set or folder of images. "
            "Give a folder that has some."
        )
    return sources


def inspect_remote(sources: Sequence[Source]) -> dict[Source, list[Source]]:
    """Return each source with its version, or the episodes of a data set that it names.

    Args:
        sources: Recordings in storages, as a manifest names them.

    Raises:
        InputError: A storage cannot be used.

    """
    by_location: dict[Location, list[Source]] = defaultdict(list)
    for source in sources:
        if source.remote is not None:
            by_location[source.remote.location].append(source)
    with ThreadPoolExecutor(_REQUESTS) as pool:
        surveys = list(pool.map(_survey, by_location))
    found: dict[Source, list[Source]] = {}
    for (location, named), files in zip(by_location.items(), surveys, strict=True):
        if INFO.as_posix() in files:
            with open_scratch() as folder:
                root = _copy_description(location, files, folder, lambda _: None)
                for source in named:
                    found[source] = list(_list_data_set(source, files, root))
        else:
            version = digest_version(files)
            for source in named:
                found[source] = [replace(source, remote=Remote(location, version))]
    return found


def list_content(location: Location) -> dict[str, Entry]:
    """Return the files that belong to the recording in a folder: those that are in it itself."""
    return {
        name: entry
        for name, entry in list_folder(location).items()
        if not entry.is_folder and not name.startswith(".")
    }


def find_description(location: Location) -> dict[str, Entry]:
    """Return the files that describe a data set, by their paths in it."""
    files = find_files(location.child(INFO.parent.as_posix()))
    return {f"{INFO.parent.as_posix()}/{name}": entry for name, entry in files.items()}


def find_episode(
    root: Path, source: Source, look_up: Callable[[str], Entry | None]
) -> tuple[dict[str, Entry], str | None]:
    """Return the files that hold a camera of an episode, and their version.

    Args:
        root: Folder with the description of the data set.
        source: The camera of an episode.
        look_up: Returns what the storage says of a file, by its path in the data set.

    Raises:
        InputError: The episode is not described.

    """
    data_set = open_data_set(root)
    frames = data_set.locate(source.episode or 0, data_set.choose_camera(source.topic))
    names = [path.relative_to(root).as_posix() for path in (frames.video, frames.table)]
    entries = {name: look_up(name) for name in dict.fromkeys(names)}
    files = {name: entry for name, entry in entries.items() if entry is not None}
    row = (frames.episode, frames.camera, frames.length, frames.rate, frames.start, names)
    return files, digest_version(files, row)


def digest_version(files: Files, described: object = None) -> str | None:
    """Return a digest of the sizes and versions of files; None if not all of them are known.

    Args:
        files: The files.
        described: What else says which content is meant.

    """
    if not files or any(entry.version is None for entry in files.values()):
        return None
    parts = [(Path(name).name, *entry[1:]) for name, entry in sorted(files.items())]
    return hashlib.sha256(repr((parts, described)).encode()).hexdigest()


def _survey(location: Location) -> dict[str, Entry]:
    """Return the files of a recording, or all of a data set."""
    entry = describe(location)
    if entry is None:
        return {}
    if not entry.is_folder:
        return {location.key: entry}
    if describe(location.child(INFO.as_posix())) is not None:
        return find_files(location)
    return list_content(location)


def _list_matches(pattern: Location) -> list[Source]:
    """Return the recordings that match a pattern, and those in folders that match it."""
    matches = {
        location: entry
        for location, entry in match_pattern(pattern).items()
        if not _is_hidden(location, pattern)
    }
    if not matches:
        raise InputError(f"no file matches {pattern.address}.")
    # A suffix that the pattern names is wanted.
    suffix = Path(pattern.key).suffix
    named = bool(suffix) and not has_magic(suffix)
    parents = {location.parent() for location, entry in matches.items() if not entry.is_folder}
    left_out = {one for one in parents if one.child(_METADATA) in matches or _has_results(one)}
    sources: list[Source] = []
    for location, entry in matches.items():
        if entry.is_folder:
            sources += _search(location, find_files(location))
        elif location.parent() not in left_out and (named or is_recording(Path(location.key))):
            sources.append(_make_source(location, {location.key: entry}))
    if not sources:
        raise InputError(f"{pattern.address} matches no video, bag or folder of images.")
    return sources


def _is_hidden(location: Location, pattern: Location) -> bool:
    """Return whether a match has a name with a dot at its begin, which the pattern has not."""
    if any(part.startswith(".") for part in pattern.key.split("/")):
        return False
    return any(part.startswith(".") for part in location.key.split("/"))


def _search(root: Location, files: Files) -> Iterator[Source]:
    """Yield the recordings in a folder and the folders below it, in the order of their names."""
    tree = _make_tree(files)
    waiting = [""]
    while waiting:
        path = waiting.pop()
        folder, location = tree[path], root.child(path)
        if _belongs_to_results(location, tree, path):
            continue
        if _is_data_set(location, files, path):
            start = f"{path}/" if path else ""
            own = {n.removeprefix(start): one for n, one in files.items() if n.startswith(start)}
            source = _make_source(location, {})
            with open_scratch() as scratch:
                yield from _list_data_set(
                    source, own, _copy_description(location, own, scratch, lambda _: None)
                )
            continue
        if _METADATA in folder.files:
            yield _make_source(location, folder.files)
            continue
        for found in list_files(Path(location.key), sorted(folder.files)):
            name = found.path.name
            one = found.path != Path(location.key)
            yield (
                _make_source(location.child(name), {name: folder.files[name]})
                if one
                else _make_source(location, folder.files)
            )
        below = [name for name in sorted(folder.folders) if not name.startswith(".")]
        waiting += [f"{path}/{name}" if path else name for name in reversed(below)]


def _make_tree(files: Files) -> dict[str, _Folder]:
    """Return what is in each folder, by its path."""
    own: dict[str, dict[str, Entry]] = defaultdict(dict)
    folders: dict[str, set[str]] = defaultdict(set)
    for path, entry in files.items():
        parent, _, name = path.rpartition("/")
        own[parent][name] = entry
        while parent:
            above, _, name = parent.rpartition("/")
            folders[above].add(name)
            parent = above
    return {path: _Folder(own[path], folders[path]) for path in {"", *own, *folders}}


def _belongs_to_results(location: Location, tree: Mapping[str, _Folder], path: str) -> bool:
    """Return whether a folder has pictures or tracks of a job, which are no recordings."""
    if Path(location.key).name not in (THUMBNAILS, *FORMATS):
        return False
    known = not path or JOB_FILE in tree[path.rpartition("/")[0]].files
    return known and _has_results(location)


def _has_results(location: Location) -> bool:
    """Return whether a folder is one of those with the results of a job."""
    if Path(location.key).name not in (THUMBNAILS, *FORMATS):
        return False
    try:
        decode_settings(read_bytes(location.parent().child(JOB_FILE)))
    except (InputError, MalformedError):
        return False
    return True


def _is_data_set(location: Location, files: Files, path: str) -> bool:
    start = f"{path}/" if path else ""
    if start + INFO.as_posix() not in files:
        return False
    if any(name.startswith(f"{start}{EPISODES.as_posix()}/") for name in files):
        return True
    return _MARK in read_bytes(location.child(INFO.as_posix()))


def _copy_description(location: Location, files: Files, root: Path, report: Report) -> Path:
    """Copy the files that describe a data set to a folder, and return the folder."""
    for name in files:
        if name.startswith(f"{INFO.parent.as_posix()}/"):
            download(location.child(name), root / name, report)
    return root


def _list_data_set(source: Source, files: Files, root: Path) -> Iterator[Source]:
    """Yield the cameras of the episodes of a data set that a source names, with their versions."""
    for one in list_episodes(replace(source, path=root)):
        version = None
        # What is damaged is reported with the failures.
        with suppress(InputError):
            if one.episode is not None:
                version = find_episode(root, one, files.get)[1]
        remote = None if one.remote is None else replace(one.remote, version=version)
        yield replace(one, path=source.path, remote=remote)


def _make_source(location: Location, files: Files) -> Source:
    """Return the recording that some files make up."""
    shown = {name: entry for name, entry in files.items() if not name.startswith(".")}
    return Source(Path(location.address), remote=Remote(location, digest_version(shown)))
