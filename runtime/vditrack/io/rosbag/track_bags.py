"""Tracks of a recording as a bag."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.atomic_files import staged_file
from vditrack.io.rosbag.bags import rosbags_library
from vditrack.io.rosbag.recordings import Recording
from vditrack.points.tracks import Tracks
from vditrack.ros_messages.camera_info import Camera, place
from vditrack.ros_messages.track_cloud import POINT_FIELDS, TRACK_FIELDS, track_rows

if TYPE_CHECKING:
    from rosbags.rosbag2 import Writer
    from rosbags.typesys.store import Typestore

TRACKS_TOPIC = "/tracker/tracks"
OVERLAY_TOPIC = "/tracker/overlay/compressed"
"""Where the node publishes them, under its usual name."""

_JPEG_QUALITY = 90


def write_tracks(
    path: Path, recording: Recording, tracks: Tracks, pictures: Iterable[Frame]
) -> None:
    """Write tracks and pictures as an MCAP file, which Foxglove opens and rosbag2 plays.

    Each message has the stamp and the frame_id of the image that it belongs to, and its place in
    the bag's time. Positions are on the plane z = 1 where the camera is calibrated, else NaN.

    Args:
        path: the file, ``.mcap``.
        recording: what was tracked.
        tracks: of it; a point's id is its index.
        pictures: T pictures with the tracks on them, uint8 [H, W, 3] RGB.

    Raises:
        InputError: rosbags is not installed.

    """
    rosbags = rosbags_library()
    rosbag2, typesys = rosbags.rosbag2, rosbags.typesys
    with staged_file(path) as scratch:
        folder = scratch.with_suffix("")
        # Version 8 writes quality of service as numbers, which every distribution reads.
        storage = rosbag2.StoragePlugin.MCAP
        with rosbag2.Writer(folder, version=8, storage_plugin=storage) as writer:
            topics = _Topics(writer, typesys.get_typestore(typesys.Stores.LATEST))
            for t, picture in enumerate(pictures):
                topics.write(recording, tracks, t, picture)
        # The folder's other file repeats what this one says.
        (folder / f"{folder.name}.mcap").replace(scratch)


class _Topics:
    """Writes the two topics of a bag."""

    def __init__(self, writer: Writer, store: Typestore) -> None:
        self._writer, self._store = writer, store
        self._connections = {
            topic: writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=store)
            for topic, kind in ((TRACKS_TOPIC, "PointCloud2"), (OVERLAY_TOPIC, "CompressedImage"))
        }

    def write(self, recording: Recording, tracks: Tracks, t: int, picture: Frame) -> None:
        """Write what there is of frame ``t``."""
        seconds, nanoseconds = divmod(int(recording.stamps[t]), 10**9)
        stamp = self._new("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
        header = self._new("std_msgs/msg/Header", stamp=stamp, frame_id=recording.frame_ids[t])
        arrival = int(recording.arrivals[t])
        rows = _rows(recording.camera, tracks, t)
        self._send(TRACKS_TOPIC, arrival, header=header, **self._cloud(rows))
        self._send(OVERLAY_TOPIC, arrival, header=header, format="jpeg", data=_jpeg(picture))

    def _cloud(self, rows: NDArray[np.void]) -> dict[str, Any]:
        """Fields of a sensor_msgs/PointCloud2."""
        kind = "sensor_msgs/msg/PointField"
        return {
            "height": 1,
            "width": len(rows),
            "fields": [
                self._new(kind, name=name, offset=offset, datatype=datatype, count=1)
                for name, offset, datatype in POINT_FIELDS
            ],
            "is_bigendian": False,
            "point_step": TRACK_FIELDS.itemsize,
            "row_step": rows.nbytes,
            "data": rows.view(np.uint8),
            "is_dense": bool(np.isfinite(rows["z"]).all()),
        }

    def _new(self, kind: str, **fields: Any) -> Any:  # noqa: ANN401
        return self._store.types[kind](**fields)

    def _send(self, topic: str, arrival: int, **fields: Any) -> None:  # noqa: ANN401
        connection = self._connections[topic]
        message = self._new(connection.msgtype, **fields)
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, arrival, data)


@dataclass(frozen=True)
class _PointsInFrame:
    """Points of a clip in one of its frames."""

    ids: NDArray[np.int64]
    points: NDArray[np.float32]
    visible: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    forward_backward_error: NDArray[np.float32]
    seconds_since_model: NDArray[np.float32]


def _rows(camera: Camera | None, tracks: Tracks, t: int) -> NDArray[np.void]:
    points = tracks.points[:, t]
    count = len(points)
    update = _PointsInFrame(
        ids=np.arange(count),
        points=points,
        visible=tracks.visible[:, t],
        confidence=tracks.confidence[:, t],
        forward_backward_error=tracks.forward_backward_error[:, t],
        # In a clip the model places every point in every frame.
        seconds_since_model=np.zeros(count, np.float32),
    )
    objects = None if tracks.object_id is None else tracks.object_id[:, t]
    return track_rows(place(points, camera, None), update, objects)


def _jpeg(picture: Frame) -> NDArray[np.uint8]:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return np.asarray(data, np.uint8).ravel()
