"""Writes a copy of a LeRobot data set with the tracks of a job as new features of its frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vditrack.annotation.folders import LocalFolder
from vditrack.annotation.lerobot_features import TrackFeatures, name_features
from vditrack.annotation.lerobot_tables import (
    MAX_META_SIZE,
    CopyWriter,
    TracksFile,
    check_content,
    find_damage,
    list_files,
    list_folders,
)
from vditrack.annotation.recordings import Source
from vditrack.annotation.results import Results, open_results
from vditrack.annotation.settings import TRACKS, Settings
from vditrack.annotation.specification import Specification
from vditrack.annotation.track_tables import SUFFIX, Record
from vditrack.annotation.units import list_units
from vditrack.atomic_files import (
    check_folder_destination,
    follow_links,
    named_option,
    staged_folder,
)
from vditrack.errors import InputError
from vditrack.input_checks.files import MalformedError, decode_json, read_file
from vditrack.io.lerobot.data_set import is_data_set, open_data_set

PROVENANCE = Path("meta/vditrack.json")
_OPTION = "--lerobot"


@dataclass(frozen=True)
class CopyRequest:
    """A copy of a data set that is wanted."""

    root: Path
    """The data set."""
    destination: Path
    sources: tuple[Source, ...]
    """Cameras of episodes that are annotated."""
    names: dict[str, str]
    """Names of the features of the positions, by camera."""
    fill_missing: bool
    """Whether what has no tracks is written as missing points."""


class _Provenance(msgspec.Struct, frozen=True):
    """Where the tracks of a copy are from: ``meta/vditrack.json``."""

    settings: Settings
    source_status: str
    """Digest of the names, sizes and times of the files of the data set."""
    tracks: tuple[tuple[int, str, str | None], ...]
    """Episode, camera and id of the recording; None where there are no tracks."""


def plan_copy(
    sources: Sequence[Source],
    destination: Path,
    output: Path,
    settings: Settings,
    *,
    fill_missing: bool,
) -> CopyRequest:
    """Return what is to be copied, and check before the work that it can be.

    Args:
        sources: Recordings that are annotated, cameras of episodes of one data set.
        destination: Folder of the copy.
        output: Folder of the results of the job.
        settings: Settings of the job.
        fill_missing: Whether what has no tracks is written as missing points.

    Raises:
        InputError: They are not of one data set, some of its episodes are left out, the number of
            points could differ, the data set is damaged, the folders are not apart, or the copy
            cannot be written.

    """
    specification = settings.specification
    roots = {source.path for source in sources}
    root = next(iter(roots))
    if len(roots) != 1 or not is_data_set(root):
        raise InputError("--lerobot writes a copy of one LeRobot data set: give it alone.")
    data_set = open_data_set(root)
    varies = specification.features is not None or specification.min_spread > 0
    if varies and specification.pad_to is None:
        raise InputError(
            "--lerobot needs the same number of points in all episodes, which --features and "
            "--min-spread do not give: add --pad-to N."
        )
    for source in sources:
        # Only one of all episodes has no number; it is refused.
        if source.episode is None:
            data_set.choose_camera(source.topic)
    left_out = set(data_set.rows) - {source.episode for source in sources}
    if left_out and not fill_missing:
        raise InputError(
            f"--lerobot: {len(left_out)} episodes are left out, such as {min(left_out)}. Annotate "
            "them, or give --fill-missing to write them with missing points."
        )
    _check_apart(root, destination, output)
    cameras = sorted({source.topic for source in sources if source.topic is not None})
    names = name_features(cameras, data_set.info.features)
    check_content(data_set)
    request = CopyRequest(root, destination, tuple(sources), names, fill_missing)
    _check_destination(request, settings)
    return request


def _check_apart(root: Path, destination: Path, output: Path) -> None:
    """Check that neither the copy nor the results would become part of another.

    Raises:
        InputError: They would.

    """
    folders, results = list_folders(root), follow_links(output)
    with named_option(_OPTION):
        copy = follow_links(destination)
    if any(copy.is_relative_to(one) or one.is_relative_to(copy) for one in folders):
        raise InputError(
            f"{_OPTION} {destination} and the data set {root} are not apart. Choose another folder "
            f"with {_OPTION}."
        )
    if copy.is_relative_to(results) or results.is_relative_to(copy):
        raise InputError(
            f"{_OPTION} {destination} and -o {output} are not apart. Choose another folder with "
            f"{_OPTION}."
        )
    if any(results.is_relative_to(one) for one in folders):
        raise InputError(
            f"-o {output} is in the data set {root}, so the results would become part of the copy. "
            "Choose another folder with -o."
        )


def _check_destination(request: CopyRequest, settings: Settings) -> None:
    """Check that the copy can be written, or is there with tracks that may be the same.

    Raises:
        InputError: It cannot, or something else is there.

    """
    destination = request.destination
    with named_option(_OPTION):
        if not (destination / PROVENANCE).exists():
            check_folder_destination(destination, ())
            return
        check_folder_destination(destination)
    found = _read_provenance(destination)
    wanted = {(source.episode, source.topic) for source in request.sources}
    if (
        found is None
        or (found.settings, found.source_status) != (settings, _read_status(request.root))
        or {camera for _, camera, _ in found.tracks} != set(request.names)
        or any(id_ and (number, camera) not in wanted for number, camera, id_ in found.tracks)
    ):
        raise _explain_other(destination)
    damaged = find_damage(request.root, destination)
    if damaged is not None:
        raise InputError(
            f"{damaged} is missing or damaged. Remove {destination}, or choose another {_OPTION}."
        )


def write_copy(request: CopyRequest, output: Path, settings: Settings) -> None:
    """Write the copy, unless it is there with the same content.

    The videos are hard links to those of the data set, or copies on another disk.

    Args:
        request: What is wanted.
        output: Folder of the results of the job, which is complete.
        settings: Settings of the job.

    Raises:
        InputError: Episodes have no tracks or other numbers of points, the data set is damaged, or
            the destination holds something else.

    """
    with open_results(LocalFolder(output), settings) as results:
        tracks = _find_tracks(request, results, output, settings)
        records = {key: one.record for key, one in tracks.items()}
        episodes = open_data_set(request.root).rows
        keys = [(episode, camera) for episode in episodes for camera in request.names]
        _check_missing(request, [key for key in keys if key not in records])
        provenance = _Provenance(
            settings,
            _read_status(request.root),
            tuple((*key, records[key].id if key in records else None) for key in keys),
        )
        if _is_written(request.destination, provenance):
            return
        count = _find_count(settings.specification, list(records.values()))
        features = [
            TrackFeatures(camera, name, count, settings.specification.coordinates)
            for camera, name in request.names.items()
        ]
        with named_option(_OPTION), staged_folder(request.destination, ()) as scratch:
            CopyWriter(request.root, scratch, features, tracks).write(PROVENANCE, provenance)


def _find_tracks(
    request: CopyRequest, results: Results, output: Path, settings: Settings
) -> dict[tuple[int, str], TracksFile]:
    """Return the files of tracks by episode and camera."""
    found = {}
    tracks = output / TRACKS
    for source in request.sources:
        identity = results.find_identity(source)
        if identity is None or source.episode is None or source.topic is None:
            continue
        for unit in list_units(source, identity, settings):
            record = results.find_record(unit.id)
            if record is not None:
                path = tracks / f"{results.files[unit.id]}{SUFFIX}"
                found[source.episode, source.topic] = TracksFile(path, record)
    return found


def _check_missing(request: CopyRequest, missing: Sequence[tuple[int, str]]) -> None:
    """Check that all that is wanted has tracks.

    Raises:
        InputError: It does not.

    """
    if missing and not request.fill_missing:
        episode, camera = missing[0]
        raise InputError(
            f"{request.destination} is not written: {len(missing)} cameras of episodes have no "
            f"tracks, such as {camera} of episode {episode}; see failed.parquet. Give "
            "--fill-missing to write them with missing points."
        )


def _find_count(specification: Specification, records: Sequence[Record]) -> int:
    """Return the number of points of the features.

    Raises:
        InputError: It differs, or there is none.

    """
    counts = sorted({record.measures.points for record in records})
    if specification.pad_to is not None:
        return specification.pad_to
    if len(counts) != 1 or not counts[0]:
        shown = f"between {counts[0]} and {counts[-1]}" if counts else "no"
        raise InputError(
            f"the episodes have {shown} points, and features of a LeRobot data set have the same "
            "number in all. Give --pad-to N and another -o."
        )
    return counts[0]


def _is_written(destination: Path, provenance: _Provenance) -> bool:
    """Return whether the copy is there.

    Raises:
        InputError: Something else is there.

    """
    if not (destination / PROVENANCE).exists():
        return False
    if _read_provenance(destination) != provenance:
        raise _explain_other(destination)
    return True


def _read_provenance(destination: Path) -> _Provenance | None:
    """Return where the tracks of a copy are from; None if that cannot be read."""
    try:
        return decode_json(read_file(destination / PROVENANCE, MAX_META_SIZE), _Provenance)
    except (OSError, MalformedError):
        return None


def _explain_other(destination: Path) -> InputError:
    return InputError(
        f"{destination} is a copy with other tracks, or the data set has changed since. Remove "
        f"it, or choose another {_OPTION}."
    )


def _read_status(root: Path) -> str:
    """Return a digest of the names, sizes and times of the files of a data set."""
    digest = hashlib.sha256()
    for path in list_files(root):
        status = (root / path).stat()
        digest.update(repr((path.as_posix(), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()
