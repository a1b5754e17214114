"""What a file of another format is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vditrack.annotation.recordings import Source
from vditrack.annotation.track_tables import Record, read_stamps, read_tracks
from vditrack.arrays import Doubles, Ints
from vditrack.points.tracks import Tracks


@dataclass(frozen=True)
class TrackContent:
    """The tracks of one unit, as its Parquet file has them."""

    source: Source
    """Where the frames can be read."""
    record: Record
    """What the Parquet file says of itself."""
    tracks: Tracks
    """N tracks over T frames, in pixels, without empty points."""
    times: Doubles
    """float64 [T] seconds since the first frame of the recording."""
    stamps: Ints | None
    """int64 [T] stamps of a bag in nanoseconds."""


def read_content(path: Path, source: Source) -> TrackContent:
    """Return the tracks in a Parquet file of a job.

    Args:
        path: The file.
        source: The recording that was tracked.

    Raises:
        InputError: The file is damaged.

    """
    saved, record = read_tracks(path)
    return TrackContent(source, record, saved.tracks, saved.times, read_stamps(path))
