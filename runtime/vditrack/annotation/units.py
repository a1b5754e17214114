"""The unit of work: a recording, a topic of it, or a range of it, with its identity."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from vditrack.annotation.failures import SourceError
from vditrack.annotation.mask_files import identify_mask
from vditrack.annotation.recordings import Source
from vditrack.annotation.settings import Settings
from vditrack.input_checks.files import RefusedFileError, open_regular_file
from vditrack.io.decoding.image_folders import is_image_folder
from vditrack.io.lerobot.data_set import EpisodeFrames, is_data_set, open_data_set
from vditrack.io.lerobot.episodes import digest_episode
from vditrack.io.rosbag.bags import is_bag, open_bag
from vditrack.io.rosbag.depth_images import list_topics_without_depth

Progress = Callable[[int, int | None], None]
"""Called with the steps done and the steps in all, None where it is not known."""
_CHUNK = 4 << 20
_ID_DIGITS = 32


class Identity(msgspec.Struct, frozen=True):
    """The content of a recording."""

    sha256: str
    """Digest of the names (in a folder) and the content of its files."""
    status: str
    """Digest of sizes and times of change of its files, or of their versions in a storage, which is
    empty if they are not known."""
    topics: tuple[str | None, ...]
    """Image topics of a bag, sorted, or the camera of an episode; [None] for others."""


@dataclass(frozen=True)
class Unit:
    """A recording, a topic of it, a range of it, or a camera of an episode."""

    source: Source
    identity: Identity
    id: str
    """Digest of the content, the topic, the range, the mask and the settings of the job."""
    mask_sha256: str | None = None
    """Digest of the mask that says where points are; None if there is none."""

    @property
    def name(self) -> str:
        """Name of the files of its results, without their suffix."""
        stem = self.source.path.stem or self.source.path.resolve().stem
        if self.source.episode is not None:
            stem += f"-{self.source.episode:06}-{self.source.topic}"
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in stem)
        return f"{safe[:80]}-{self.id}"


def identify(source: Source, progress: Progress) -> Identity:
    """Read the files of a recording, and return what identifies its content.

    Args:
        source: The recording, on this machine.
        progress: Called with the bytes that were read, and those in all.

    Raises:
        SourceError: It does not exist, is not a regular file, or changes while it is read.
        InputError: It is a bag or an episode that cannot be read.

    """
    status, files = read_status(source)
    if is_data_set(source.path):
        sha256 = digest_episode(_locate(source), progress)
        check_unchanged(source, status)
        return Identity(sha256, status, (source.topic,))
    total, done = sum(file.stat().st_size for file in files), 0
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        if source.path.is_dir():
            digest.update(os.fsencode(file.name) + f"\n{size}\n".encode())
        with _refuse_special(file), open_regular_file(file) as content:
            # A file that grows has no end.
            left = size
            while chunk := content.read(min(_CHUNK, left)):
                digest.update(chunk)
                left -= len(chunk)
                done += len(chunk)
                progress(done, total)
    check_unchanged(source, status)
    return Identity(digest.hexdigest(), status, _list_topics(source))


def list_units(source: Source, identity: Identity, settings: Settings) -> list[Unit]:
    """Return the units of a source: one for the topic that it names, or for each that it has."""
    units = []
    for topic in identity.topics if source.topic is None else (source.topic,):
        one = replace(source, topic=topic)
        episode = () if one.episode is None else (one.episode,)
        pattern = settings.specification.mask
        mask = None if pattern is None else identify_mask(pattern, one)
        parts = (identity.sha256, topic, *episode, one.start, one.end, mask, settings)
        digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
        units.append(Unit(one, identity, digest[:_ID_DIGITS], mask))
    return units


def read_status(source: Source) -> tuple[str, list[Path]]:
    """Return a digest of the sizes and times of a recording's files, and the files.

    Raises:
        SourceError: There is no such file.
        InputError: It is an episode that is not described.

    """
    path, digest = source.path, hashlib.sha256()
    try:
        if is_data_set(path):
            frames = _locate(source)
            # What is said of other episodes may change.
            digest.update(repr(frames).encode())
            files = list(dict.fromkeys((frames.video, frames.table)))
        else:
            files = _list_content(path) if path.is_dir() else [path]
        for file in files:
            status = file.stat()
            parts = (file.name, status.st_ino, status.st_size, status.st_mtime_ns)
            digest.update(repr((*parts, status.st_ctime_ns)).encode())
    except FileNotFoundError as error:
        raise SourceError("absent", f"there is no {error.filename or path}.") from error
    return digest.hexdigest(), files


def check_unchanged(source: Source, status: str) -> None:
    """Check that the files of a recording are as they were; a copy does not change.

    Raises:
        SourceError: They changed.

    """
    if source.is_copied:
        return
    if read_status(source)[0] != status:
        raise SourceError(
            "changed",
            f"{source.path} changed while it was read. Run the command again when it is complete.",
        )


def _locate(source: Source) -> EpisodeFrames:
    """Return where the frames of an episode are, and refuse what an episode cannot have."""
    data_set = open_data_set(source.path)
    if source.episode is None:
        if source.topic is not None:
            data_set.choose_camera(source.topic)
        raise SourceError("refused", f"{source.path} is a data set: name an episode of it.")
    if source.start or source.end is not None:
        raise SourceError(
            "refused", "a part of an episode cannot be read: leave start and end out."
        )
    return data_set.locate(source.episode, data_set.choose_camera(source.topic))


def _list_content(folder: Path) -> list[Path]:
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(path for path in entries if not path.is_dir())


def _list_topics(source: Source) -> tuple[str | None, ...]:
    path = source.path
    if not is_bag(path) or is_image_folder(path):
        if source.topic is not None:
            raise SourceError("refused", f"a topic is for bags; {path} is none.")
        return (None,)
    with open_bag(path) as bag:
        topics = list_topics_without_depth(bag)
    if not topics and source.topic is None:
        raise SourceError("refused", f"{path} has no image topic.")
    return tuple(topics)


@contextmanager
def _refuse_special(path: Path) -> Iterator[None]:
    try:
        yield
    except RefusedFileError as error:
        raise SourceError("refused", f"{path} is not read: {error.strerror}.") from error
