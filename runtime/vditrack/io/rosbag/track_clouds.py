"""Reading tracks from a bag: of `vditrack track`, or recorded from the ROS node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.io.rosbag.bags import Bag, open_bag
from vditrack.io.rosbag.recordings import Recording
from vditrack.io.viewed_frames import ViewedFrame, ViewedPoints
from vditrack.ros_messages.point_fields import read_point_fields
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds

_CLOUD = "sensor_msgs/msg/PointCloud2"
_FIELDS = ("id", "u", "v", "visible", "confidence")
"""The fields of `vditrack.ros_messages.track_cloud.TRACK_FIELDS` that are shown."""


@dataclass(frozen=True)
class RecordedTracks:
    """The tracks of a topic, by the stamps of their images."""

    topic: str
    stamps: tuple[int, ...]
    """Stamps [T] in nanoseconds, ascending."""
    points: Sequence[ViewedPoints]
    """Points in each of T images."""


def read_tracks(path: Path, topic: str | None = None) -> RecordedTracks:
    """Read the tracks of a bag.

    Args:
        path: the bag's folder, or one of its `.mcap` or `.db3` files.
        topic: a topic of tracks; optional if the bag has a single one.

    Raises:
        InputError: rosbags is not installed, there is no such bag or topic, or the bag is damaged.

    """
    with open_bag(path) as bag:
        chosen = _find_tracks_topic(bag, topic)
        clouds = dict(sorted(_read_clouds(bag, chosen)))
    if not clouds:
        raise InputError(f"{chosen} in {path} has no message.")
    return RecordedTracks(chosen, tuple(clouds), tuple(clouds.values()))


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


def _read_clouds(bag: Bag, topic: str) -> Iterator[tuple[int, ViewedPoints]]:
    """Yield the stamp and the points of each message."""
    for arrival, message in bag.messages(topic):
        rows = read_point_fields(message, _FIELDS).ravel()
        points = np.stack([rows["u"], rows["v"]], axis=1).astype(np.float32)
        yield (
            to_nanoseconds(message.header.stamp) or arrival,
            ViewedPoints(
                rows["id"].astype(np.int64),
                points,
                rows["visible"].astype(bool),
                rows["confidence"].astype(np.float32),
            ),
        )


def view_recorded(tracks: RecordedTracks, recording: Recording | None) -> Iterator[ViewedFrame]:
    """Yield all images and all tracks in the order of their stamps.

    Args:
        tracks: the tracks of a bag.
        recording: the images that were tracked; None to show the tracks alone.

    """
    points = dict(zip(tracks.stamps, tracks.points, strict=True))
    pictures: dict[int, Frame] = {}
    if recording is not None:
        pictures = dict(zip(recording.stamps.tolist(), recording.frames, strict=True))
    stamps = sorted({*points, *pictures})
    for number, stamp in enumerate(stamps):
        yield ViewedFrame(
            number=number,
            time=(stamp - stamps[0]) / NANOSECONDS_PER_SECOND,
            picture=pictures.get(stamp),
            points=points.get(stamp),
            stamp=stamp,
        )
