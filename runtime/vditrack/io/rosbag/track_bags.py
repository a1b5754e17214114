"""Writing the tracks of a recording to a rosbag2 file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, Frame, Ints
from vditrack.atomic_files import staged_file
from vditrack.io.rosbag.bags import import_rosbags
from vditrack.io.rosbag.recordings import ImageMessages
from vditrack.points.tracks import Tracks
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.positions import Positions, place_on_plane
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack.ros_messages.track_cloud import (
    POINT_FIELDS,
    build_track_rows,
    describe_track_rows,
)

if TYPE_CHECKING:
    from rosbags.rosbag2 import Writer
    from rosbags.typesys.store import Typestore

TRACKS_TOPIC = "/tracker/tracks"
OVERLAY_TOPIC = "/tracker/overlay/compressed"
"""Topics on which the ROS node publishes the same messages under its default name."""

_JPEG_QUALITY = 90


def write_tracks(
    path: Path, recording: ImageMessages, tracks: Tracks, pictures: Iterable[Frame]
) -> None:
    """Write tracks and overlay pictures to an MCAP file for Foxglove and `ros2 bag play`.

    Each message has the stamp, the frame_id and the time of arrival of its image. Positions are on
    the plane z = 1 if the camera is calibrated, otherwise NaN.

    Args:
        path: the file to write, `.mcap`.
        recording: the metadata of the images that were tracked.
        tracks: tracks of the recording; the id of a point is its index.
        pictures: T pictures with the tracks drawn, uint8 [H, W, 3] RGB.

    Raises:
        InputError: rosbags is not installed.

    """
    rosbags = import_rosbags()
    rosbag2, typesys = rosbags.rosbag2, rosbags.typesys
    with staged_file(path) as scratch:
        folder = scratch.with_suffix("")
        # Every distribution reads the quality-of-service format of version 8.
        storage = rosbag2.StoragePlugin.MCAP
        with rosbag2.Writer(folder, version=8, storage_plugin=storage) as writer:
            topics = _TrackWriter(writer, typesys.get_typestore(typesys.Stores.LATEST))
            for t, picture in enumerate(pictures):
                topics.write(recording, tracks, t, picture)
        # The metadata file in the folder repeats the content of the MCAP file.
        (folder / f"{folder.name}.mcap").replace(scratch)


class _TrackWriter:
    """Writes the track cloud and the overlay of each frame."""

    def __init__(self, writer: Writer, store: Typestore) -> None:
        self._writer, self._store = writer, store
        self._connections = {
            topic: writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=store)
            for topic, kind in ((TRACKS_TOPIC, "PointCloud2"), (OVERLAY_TOPIC, "CompressedImage"))
        }

    def write(self, recording: ImageMessages, tracks: Tracks, t: int, picture: Frame) -> None:
        """Write the messages of frame `t`."""
        seconds, nanoseconds = divmod(int(recording.stamps[t]), NANOSECONDS_PER_SECOND)
        stamp = self._new("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
        header = self._new("std_msgs/msg/Header", stamp=stamp, frame_id=recording.frame_ids[t])
        arrival = int(recording.arrivals[t])
        rows = _build_rows(recording.camera, tracks, t)
        self._write_message(TRACKS_TOPIC, arrival, header=header, **self._cloud_fields(rows))
        self._write_message(
            OVERLAY_TOPIC, arrival, header=header, format="jpeg", data=_encode_jpeg(picture)
        )

    def _cloud_fields(self, rows: NDArray[np.void]) -> dict[str, Any]:
        """Return the fields of a sensor_msgs/PointCloud2, without its header."""
        kind = "sensor_msgs/msg/PointField"
        return {
            **describe_track_rows(rows),
            "fields": [
                self._new(kind, name=name, offset=offset, datatype=datatype, count=1)
                for name, offset, datatype in POINT_FIELDS
            ],
            "data": rows.view(np.uint8),
        }

    def _new(self, kind: str, **fields: Any) -> Any:  # noqa: ANN401
        return self._store.types[kind](**fields)

    def _write_message(self, topic: str, arrival: int, **fields: Any) -> None:  # noqa: ANN401
        connection = self._connections[topic]
        message = self._new(connection.msgtype, **fields)
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, arrival, data)


@dataclass(frozen=True)
class _PointsInFrame:
    """The points of a clip in one frame, as `PlacedPoints`."""

    ids: Ints
    points: Floats
    visible: Bools
    confidence: Floats
    forward_backward_error: Floats
    seconds_since_model: Floats


def _build_rows(camera: Camera | None, tracks: Tracks, t: int) -> NDArray[np.void]:
    points = tracks.points[:, t]
    count = len(points)
    update = _PointsInFrame(
        ids=np.arange(count),
        points=points,
        visible=tracks.visible[:, t],
        confidence=tracks.confidence[:, t],
        forward_backward_error=tracks.forward_backward_error[:, t],
        # Offline, the model places every point in every frame.
        seconds_since_model=np.zeros(count, np.float32),
    )
    objects = None if tracks.object_id is None else tracks.object_id[:, t]
    # The depth images of a bag are not read.
    placed = Positions.unknown(count) if camera is None else place_on_plane(points, camera)
    return build_track_rows(placed, update, objects)


def _encode_jpeg(picture: Frame) -> NDArray[np.uint8]:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return np.asarray(data, np.uint8).ravel()
