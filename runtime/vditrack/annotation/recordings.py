"""Recordings: what they are, and which files and folders are some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vditrack.annotation.storage import Location, is_address
from vditrack.errors import InputError
from vditrack.io.lerobot.data_set import open_data_set
from vditrack.io.rosbag.bags import is_bag_file

_VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts"}) | {
    ".m2ts",
    ".mts",
    ".wmv",
    ".flv",
    ".ogv",
    ".3gp",
    ".gif",
}
_IMAGES = frozenset({".jpg", ".jpeg", ".png"})
_FEWEST_IMAGES = 2
"""Images in a folder below which it is no recording."""


@dataclass(frozen=True)
class Remote:
    """Where a recording is in a storage."""

    location: Location
    version: str | None = field(default=None, compare=False)
    """Digest of the sizes and versions of its files when it was listed; None if not known."""


@dataclass(frozen=True)
class Source:
    """A recording, or a range of one."""

    path: Path
    """A video file, a folder of images, a bag (its folder or its file), or a LeRobot data set.

    Of one in a storage that is not copied to this machine, it has the name alone, and is not there.
    """
    topic: str | None = None
    """Image topic of a bag or camera of a data set; None for each of them."""
    start: float = 0.0
    """Seconds after the first frame."""
    end: float | None = None
    """Seconds after the first frame; None for the end."""
    episode: int | None = None
    """Episode of a LeRobot data set."""
    remote: Remote | None = None
    """Where it is in a storage; None for one on a disk."""

    @property
    def place(self) -> str:
        """The address or path as it was given; other bytes than UTF-8 are surrogates."""
        return self.path.as_posix() if self.remote is None else self.remote.location.address

    @property
    def is_copied(self) -> bool:
        """Whether ``path`` is a copy of a recording in a storage."""
        return self.remote is not None and self.path != Path(self.place)


def make_source(
    place: str, topic: str | None, start: float, end: float | None, episode: int | None
) -> Source:
    """Return a recording by its path or address, as `Source.place` returns it."""
    remote = Remote(Location("", place)) if is_address(place) else None
    return Source(Path(place), topic, start, end, episode, remote)


def list_files(folder: Path, names: Sequence[str]) -> Iterator[Source]:
    """Yield the recordings among the files of a folder, or the folder if they are images."""
    paths = [folder / name for name in sorted(names) if not name.startswith(".")]
    recordings = list(filter(is_recording, paths))
    images = [path for path in paths if path.suffix.lower() in _IMAGES]
    # Pictures beside videos are previews of them.
    if not recordings and len(images) >= _FEWEST_IMAGES:
        yield Source(folder)
    yield from (Source(path) for path in recordings)


def is_recording(path: Path) -> bool:
    """Return whether a file has the suffix of a video or a bag."""
    return path.suffix.lower() in _VIDEOS or is_bag_file(path.with_name(path.name.lower()))


def list_episodes(source: Source) -> Iterator[Source]:
    """Yield each camera of each episode of a data set, of those that the source names.

    A camera without videos is one recording, which is reported with the failures.
    """
    try:
        data_set = open_data_set(source.path)
    except InputError:
        # It is reported with the failures.
        yield source
        return
    cameras = data_set.cameras if source.topic is None else [source.topic]
    in_tables = [camera for camera in data_set.cameras if not data_set.has_videos(camera)]
    yield from (replace(source, topic=camera) for camera in cameras if camera in in_tables)
    for episode in data_set.rows if source.episode is None else [source.episode]:
        for camera in cameras:
            if camera not in in_tables:
                yield replace(source, topic=camera, episode=episode)
