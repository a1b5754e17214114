"""Reading tracks from a bag: of `vditrack track`, or recorded from the ROS node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vditrack.arrays import Frame, Ints
from vditrack.errors import InputError
from vditrack.io.rosbag.bags import Bag, open_bag
from vditrack.io.viewed_frames import ViewedFrame, ViewedPoints
from vditrack.ros_messages.point_fields import read_point_fields
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds

_CLOUD = "sensor_msgs/msg/PointCloud2"
_FIELDS = ("id", "u", "v", "visible", "confidence")
"""The fields of `vditrack.ros_messages.track_cloud.TRACK_FIELDS` that are shown."""


@dataclass(frozen=True)
class RecordedTracks:
    """The tracks of a topic of a bag, which are read one message after the other."""

    path: Path
    """The bag."""
    topic: str
    stamps: tuple[int, ...]
    """Stamps [T] of the images in nanoseconds, ascending."""
    places: tuple[int, ...]
    """Number [T] of each stamp's message in the order of the bag."""

    def read(self) -> Iterator[ViewedPoints]:
        """Yield the points in each image, in the order of the stamps.

        Messages that were recorded before one with an earlier stamp are in memory meanwhile.

        Raises:
            InputError: The bag is damaged.

        """
        wanted, waiting = set(self.places), dict[int, ViewedPoints]()
        upcoming = iter(self.places)
        following = next(upcoming, None)
        with open_bag(self.path) as bag:
            for place, (_, message) in enumerate(bag.messages(self.topic)):
                if place in wanted:
                    waiting[place] = _read_points(message)
                while following is not None and following in waiting:
                    yield waiting.pop(following)
                    following = next(upcoming, None)


def read_tracks(path: Path, topic: str | None = None) -> RecordedTracks:
    """Find the tracks of a bag.

    Args:
        path: the bag's folder, or one of its `.mcap` or `.db3` files.
        topic: a topic of tracks; optional if the bag has a single one.

    Returns:
        The tracks. Of several messages with the stamp of one image, the last one counts.

    Raises:
        InputError: rosbags is not installed, there is no such bag or topic, or the bag is damaged.

    """
    with open_bag(path) as bag:
        chosen = _find_tracks_topic(bag, topic)
        places = {
            to_nanoseconds(message.header.stamp) or arrival: place
            for place, (arrival, message) in enumerate(bag.messages(chosen))
        }
    if not places:
        raise InputError(f"{chosen} in {path} has no message.")
    stamps = tuple(sorted(places))
    return RecordedTracks(path, chosen, stamps, tuple(places[stamp] for stamp in stamps))


def _find_tracks_topic(bag: Bag, topic: str | None) -> str:
    found = sorted(name for name in bag.topics if _has_tracks(bag, name))
    if not found:
        raise InputError(
            f"{bag.path} has no topic of tracks: none has the fields {', '.join(_FIELDS)} of the "
            "node's ~/tracks."
        )
    available = f"Its topics of tracks are {', '.join(found)}."
    if topic is not None and topic not in found:
        raise InputError(f"{bag.path} has no topic of tracks {topic}. {available}")
    if topic is None and len(found) > 1:
        raise InputError(
            f"give --tracks-topic: {bag.path} has {len(found)} topics of tracks. {available}"
        )
    return topic or found[0]


def _has_tracks(bag: Bag, topic: str) -> bool:
    if bag.topics[topic].msgtype != _CLOUD:
        return False
    message = next((message for _, message in bag.messages(topic)), None)
    return message is not None and set(_FIELDS) <= {field.name for field in message.fields}


def _read_points(message: Any) -> ViewedPoints:  # noqa: ANN401
    rows = read_point_fields(message, _FIELDS).ravel()
    return ViewedPoints(
        rows["id"].astype(np.int64),
        np.stack([rows["u"], rows["v"]], axis=1).astype(np.float32),
        rows["visible"].astype(bool),
        rows["confidence"].astype(np.float32),
    )


def merge_stamps(tracks: RecordedTracks, stamps: Ints | None) -> list[int]:
    """Return the stamps of all tracks and of all images int64 [T], ascending."""
    return sorted({*tracks.stamps, *([] if stamps is None else stamps.tolist())})


def view_recorded(
    tracks: RecordedTracks, frames: Iterable[Frame] | None = None, stamps: Ints | None = None
) -> Iterator[ViewedFrame]:
    """Yield all images and all tracks in the order of their stamps.

    Args:
        tracks: the tracks of a bag.
        frames: the T images that were tracked, uint8 [H, W, 3] RGB; None to show the tracks alone.
        stamps: int64 [T] of the images, in nanoseconds, ascending.

    """
    merged = merge_stamps(tracks, stamps)
    tracked, pictured = set(tracks.stamps), set([] if stamps is None else stamps.tolist())
    points, pictures = tracks.read(), iter(() if frames is None else frames)
    for number, stamp in enumerate(merged):
        yield ViewedFrame(
            number=number,
            time=(stamp - merged[0]) / NANOSECONDS_PER_SECOND,
            picture=next(pictures) if stamp in pictured else None,
            points=next(points) if stamp in tracked else None,
            stamp=stamp,
        )
